"""What `coverage` says of a weight is what training does with it."""

import keras
import numpy as np
import pytest

import keras_spectral as ks
from keras_spectral.capture import alignment, coverage
from keras_spectral.capture.coverage import (
    BIAS,
    LEFT_OUT,
    NO_EXAMPLE,
    NOT_ITSELF,
    NOT_TRAINED,
)
from keras_spectral.capture.listing import WIDTH, listing
from tests.capture.every_layer import TRAINABLE
from tests.capture.examples import N, Standardised, example

L = keras.layers


class Normalised(L.Dense):
    """Multiplies by its kernel, divided by its norm."""

    @property
    def kernel(self):
        kernel = super().kernel
        return kernel / keras.ops.norm(kernel) if kernel is not None else None


class Halved(L.Dense):
    """A `call` of its own."""

    def call(self, x):
        return super().call(x) / 2


class Cell(L.Layer):
    """A recurrent cell of one's own, with a layer within."""

    state_size = 3

    def __init__(self):
        super().__init__()
        self.mix = L.Dense(3, name="mix")

    def build(self, shape):
        self.mix.build((None, shape[-1] + 3))

    def call(self, x, states):
        state = self.mix(keras.ops.concatenate([x, states[0]], -1))
        return state, [state]


class Folded(L.Layer):
    """Time folded into the batch."""

    def __init__(self):
        super().__init__()
        self.within = L.Dense(3, name="within")

    def build(self, shape):
        self.within.build((None, shape[-1]))

    def call(self, x):
        folded = self.within(keras.ops.reshape(x, (-1, x.shape[-1])))
        return keras.ops.reshape(folded, (-1, x.shape[1], 3))


class Loop(L.RNN):
    """A recurrent layer with a `call` of its own."""

    def call(self, sequences, initial_state=None, mask=None, training=False):
        return super().call(sequences, initial_state, mask, training)


class Wider(L.Dense):
    """A weight besides those of its family, in the same `call`."""

    def build(self, shape):
        super().build(shape)
        self.spare = self.add_weight(shape=(2,), name="spare")


def lora(layer):
    def call(x):
        y = layer(x)
        layer.enable_lora(1)
        return y

    return call


def quantised(layer, mode="int8"):
    def call(x):
        y = layer(x)
        layer.quantize(mode)
        return y

    return call


def tokens(layer):
    return lambda x: layer(keras.ops.cast(x > 0, "int32"))


# layer, shape of one input, why the family leaves it to the generic rule
LEFT = {
    "LoRA": (lambda: lora(L.Dense(3)), (4,), "LoRA: the kernel is frozen"),
    "LoRA, convolution": (lambda: lora(L.Conv1D(3, 2)), (5, 4), "LoRA: the kernel is frozen"),
    "LoRA, tokens": (lambda: tokens(lora(L.Embedding(7, 3))), (5,), "LoRA: the kernel is frozen"),
    "quantised": (
        lambda: quantised(L.Dense(3)),
        (4,),
        "quantised weights (int8), in a `call` of their own",
    ),
    "float8": (
        lambda: quantised(L.Dense(3), "float8"),
        (4,),
        "quantised weights (float8), in a `call` of their own",
    ),
    "equation": (
        lambda: L.EinsumDense("abc,bcd->abd", (5, 3)),
        (5, 4),
        "the equation 'abc,bcd->abd' has a kernel of its own for each position",
    ),
    "call": (lambda: Halved(3), (4,), "a `call` of its own, not that of Dense"),
    "what call uses": (
        lambda: Standardised(3, 2),
        (5, 4),
        "a `convolution_op` of its own, not that of Conv1D",
    ),
    "kernel": (lambda: Normalised(3), (4,), "a `kernel` of its own, not that of Dense"),
    "stacked": (
        lambda: L.RNN([L.GRUCell(3)], name="rnn"),
        (5, 4),
        "run by no recurrent layer of Keras; seen at 'rnn', around it",
    ),
    "loop": (
        lambda: Loop(L.GRUCell(3), name="loop"),
        (5, 4),
        "run by Loop, which has a `call` or a loop of its own; seen at 'loop', around it",
    ),
    "layer in a loop": (
        lambda: L.RNN(Cell(), name="rnn"),
        (5, 4),
        f"{NOT_ITSELF}; seen at 'rnn', around it",
    ),
    "layer that sees folded time": (
        lambda: Folded(),
        (5, 4),
        f"{NOT_ITSELF}; seen at 'folded', around it",
    ),
    "no family": (lambda: L.PReLU(), (4,), ""),
}


@pytest.mark.parametrize("name", LEFT)
def test_a_layer_left_to_the_generic_rule_says_why(name):
    make, shape, why = LEFT[name]
    model, _, _ = example(make, shape)
    table = ks.coverage(model)
    captured = table[table["captured"]]
    assert set(captured["how"]) == {"GenericRule"}
    assert set(captured["reason"]) == {why}


def folded(x):
    """Return what comes of time folded into the batch, with no layer around."""
    steps = L.Dense(3, name="step")(keras.ops.reshape(x, (-1, 4)))
    return L.Dense(2, name="last")(keras.ops.reshape(steps, (-1, 15)))


RECORDED = {
    **{name: case[:2] for name, case in LEFT.items()},
    **{name: TRAINABLE[name] for name in ("Bidirectional", "ConvLSTM1D", "SpectralNormalization")},
    "folded": (lambda: folded, (5, 4)),
    "wider": (lambda: Wider(3), (4,)),
}


@pytest.mark.filterwarnings("ignore:The spectra of layer")
@pytest.mark.filterwarnings("ignore:Gradients do not exist")  # of the spare weight: Keras says so
@pytest.mark.parametrize("name", RECORDED)
def test_what_is_captured_is_what_training_records(name):
    model, x, _ = example(*RECORDED[name])
    table = ks.coverage(model)
    table = table[table["captured"]]
    y = np.zeros(model(x).shape, "f")
    model.compile("sgd", "mse", spectra=1)
    model.fit(x, y, batch_size=N, verbose=0)
    rows = model.spectral_log.rows
    recorded = set(zip(rows["layer"], rows["weight"], strict=True))
    assert recorded == set(zip(table["layer"], table["weight"], strict=True))


def reasons(model):
    return ks.coverage(model).set_index("weight")["reason"].to_dict()


def test_what_is_not_captured_says_why():
    model, _, _ = example(lambda: L.BatchNormalization(), (4,))
    assert reasons(model) == dict(gamma="", beta="") | dict.fromkeys(
        ["moving_mean", "moving_variance"], NOT_TRAINED
    )
    model, _, _ = example(lambda: L.GRU(3), (5, 4))
    assert reasons(model) == {"kernel": "", "recurrent_kernel": "", "bias": BIAS}
    model, _, _ = example(lambda: Wider(3), (4,))
    assert reasons(model) == {"kernel": "", "bias": BIAS, "spare": LEFT_OUT}
    model, _, _ = example(lambda: lambda x: L.Dense(3)(keras.ops.reshape(x, (-1, 4))), (5, 4))
    assert reasons(model) == {"kernel": NO_EXAMPLE, "bias": NO_EXAMPLE}


def test_a_layer_that_can_only_be_seen_at_the_model_says_so():
    model, _, _ = example(lambda: folded, (5, 4))
    at_the_model = f"{NOT_ITSELF}; seen at the model as a whole"
    assert ks.coverage(model)["reason"].tolist() == [at_the_model, at_the_model, "", BIAS]


def test_a_kernel_that_is_not_trained_is_not_captured():
    model, _, _ = example(lambda: L.Dense(3), (4,))
    model.layers[-1].kernel.trainable = False
    table = ks.coverage(model).set_index("weight")
    assert not table["captured"].any()
    assert table["reason"].to_dict() == {"kernel": NOT_TRAINED, "bias": BIAS}


class Twice(L.LSTM):
    def call(self, sequences, initial_state=None, mask=None, training=None):
        return 2 * super().call(sequences, initial_state, mask, training)


def test_on_a_gpu_what_runs_a_fused_kernel_in_a_call_of_its_own_is_not_captured(monkeypatch):
    model, x, y = example(lambda: Twice(3, name="own"), (5, 4))
    model.compile(loss="mse")
    assert set(ks.introspect(model, x, y).layers) == {"own/lstm_cell"}
    for module in (alignment, coverage):
        monkeypatch.setattr(module, "is_fused", lambda layer: isinstance(layer, L.LSTM))
    with pytest.warns(UserWarning, match="'own/lstm_cell' are not recorded: .* a fused kernel"):
        assert not ks.introspect(model, x, y).layers
    assert set(ks.coverage(model)["reason"]) == {alignment.NOT_TWICE}


def test_looking_leaves_the_model_as_it_was():
    model, x, _ = example(lambda: L.Dense(3, activity_regularizer="l2"), (4,))
    model(x)
    before = model.losses
    assert before
    attributes = [dict(vars(layer)) for layer in model._flatten_layers()]
    ks.coverage(model)
    assert model.losses == before
    for layer, kept in zip(model._flatten_layers(), attributes, strict=True):
        assert vars(layer).keys() == kept.keys()


def residual(x):
    """Return a small ResNet's output."""
    for block in range(2):
        y = L.Conv2D(4, 3, padding="same", use_bias=False, name=f"block{block}_conv")(x)
        x = L.Add()([x, L.BatchNormalization(name=f"block{block}_norm")(y)])
    return L.Dense(2, name="head")(L.GlobalAveragePooling2D()(x))


LONG = "_".join(["an", "encoder", "with", "a", "name", "of"] * 6)


def nested(x):
    inner = keras.Sequential([L.Dense(3, name=f"first_{LONG}"), L.Dense(2, name=f"last_{LONG}")])
    return keras.Model(x, inner(x), name=LONG)(x)


LISTED = {
    "residual": (lambda: residual, (6, 6, 4)),
    "lstm": (lambda: L.LSTM(3), (5, 4)),
    "embedding": (lambda: tokens(L.Embedding(7, 3)), (5,)),
    "nested": (lambda: nested, (4,)),
    "attention": TRAINABLE["MultiHeadAttention"],
    "scalar": TRAINABLE["Attention"],
}


@pytest.mark.parametrize("name", LISTED)
def test_the_listing_has_every_layer_by_its_whole_name_and_adds_up(name):
    model, _, _ = example(*LISTED[name])
    table = ks.coverage(model)
    text = listing(table)
    for path, layer_type in zip(table["layer"], table["layer_type"], strict=True):
        assert f"{path} ({layer_type})" in text.replace("/\n    ", "/")
    longest = max(len(part) for path in table["layer"] for part in path.split("/"))
    assert all(len(line) <= max(WIDTH, longest + 20) for line in text.splitlines())
    captured = table[table["captured"]]
    assert f"Captured: {len(captured)} of {len(table)} weights" in text
    parameters = f"{captured['parameters'].sum():,} of {table['parameters'].sum():,} parameters"
    assert f"weights, {parameters} (" in text
    for reason in set(table["reason"]) - {""}:
        assert reason in " ".join(text.split())


def test_the_listing_of_a_small_network_reads_so():
    model, _, _ = example(lambda: residual, (6, 6, 4))
    lines = listing(ks.coverage(model)).splitlines()
    assert lines[:10] == [
        "layer (type)",
        "  weight                shape              parameters  captured by",
        "",
        "block0_conv (Conv2D)",
        "  kernel                3×3×4×4                   144  ConvolutionRule",
        "",
        "block0_norm (BatchNormalization)",
        "  gamma                 4                           4  NormalizationRule",
        "  beta                  4                           4  NormalizationRule",
        "  moving_mean           4                           4  no [1]",
    ]
    assert lines[-8:] == [
        "Captured: 7 of 12 weights, 312 of 330 parameters (94.5 %)",
        "      2 weights           288 parameters  ConvolutionRule",
        "      4 weights            16 parameters  NormalizationRule",
        "      1 weight              8 parameters  DenseRule",
        "Not captured: 5 of 12 weights, 18 of 330 parameters (5.5 %)",
        "      4 weights            16 parameters  [1] not trainable",
        "      1 weight              2 parameters  [2] a bias: its gradient is the sum of the "
        "rows of the",
        "                                          adjoint",
    ]


def test_a_long_weight_or_shape_has_a_line_of_its_own():
    model, _, _ = example(lambda: L.Dense(3), (4,))
    table = ks.coverage(model)
    table.loc[0, "weight"] = "a_weight_with_a_long_name"
    table.at[1, "shape"] = (123456789, 123456789)
    lines = listing(table).splitlines()
    assert lines[4] == "  a_weight_with_a_long_name"
    assert lines[5] == " " * 24 + "4×3                        12  DenseRule"
    assert lines[6] == "  bias                  123456789×123456789"
    assert lines[7] == " " * 42 + "          3  no [1]"


def test_a_model_without_weights_is_listed_as_such():
    model, _, _ = example(lambda: L.ReLU(), (4,))
    assert listing(ks.coverage(model)) == "No weights."
