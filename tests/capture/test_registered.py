"""Layers of the user's own: what a registered function says, and whether it is checked."""

import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_spectral as ks
from keras_spectral.capture import registry
from tests.capture.examples import N, example
from tests.oracles.mlp import singular_values

TOLERANCE = 1e-5
LABELS = np.array(["a", "b", "a", "c", "b", "a"])
GROUPS = {"all": np.ones(N, bool), "a": LABELS == "a", "b": LABELS == "b", "c": LABELS == "c"}

L = keras.layers
ops = keras.ops


@pytest.fixture(autouse=True)
def unregistered(monkeypatch):
    """Forget after each test what it registered."""
    monkeypatch.setattr(registry, "REGISTERED", {})


class Dense(L.Layer):
    """tanh(x w + b), the function in an attribute."""

    def __init__(self, units=3, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.function = keras.activations.tanh

    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1], self.units), name="w")
        self.b = self.add_weight(shape=(self.units,), name="b")

    def call(self, x):
        return self.function(ops.matmul(x, self.w) + self.b)


class Inlined(Dense):
    def call(self, x):
        return ops.tanh(ops.matmul(x, self.w) + self.b)


class Pair(Dense):
    def call(self, x):
        return super().call(x), x


def product(layer, inputs, adjoint):
    return {"w": (inputs, adjoint)}


def differentiated(layer, inputs, adjoint):
    z = ops.matmul(inputs, layer.w) + layer.b
    return {"w": (inputs, adjoint * (1 - ops.tanh(z) ** 2))}


def recorded(model, x, y, **options):
    options = {"spectra": 1, **options}
    model.compile(keras.optimizers.SGD(0.0), "mean_squared_error", **options)
    model.fit(x, y, groups=LABELS, batch_size=N, shuffle=False, verbose=0)
    return model.spectral_log


def assert_equal(log, weight, a, d):
    """Compare with A `[n, s, i]` and Δ `[n, s, o]` in float64."""
    layer = log.layers[0]
    for group, members in GROUPS.items():
        rows = [part[members].reshape(-1, part.shape[-1]) for part in (a, d)]
        for quantity, matrix in zip(
            ("activation", "adjoint", "gradient"), (*rows, rows[0].T @ rows[1]), strict=True
        ):
            part = log.select(layer=layer, weight=weight, quantity=quantity, group=group)
            values = part.sigma[0]
            wanted = singular_values(matrix, len(values))
            assert np.abs(values - wanted).max() <= TOLERANCE * wanted[0], (quantity, group)


def oracle_of_dense(layer, x, y):
    """A and Δ of a tanh layer and mean squared error, by NumPy."""
    x, w, b = (np.asarray(part, float) for part in (x, layer.w, layer.b))
    output = np.tanh(x @ w + b)
    delta = 2 * (output - y) / y.size * (1 - output**2)
    return tuple(part.reshape(N, -1, part.shape[-1]) for part in (x, delta))


@pytest.mark.parametrize("shape", [(5,), (2, 4, 5)], ids=str)
@pytest.mark.parametrize(
    ("layer", "function", "activation"),
    [(Dense, product, "function"), (Inlined, differentiated, None)],
    ids=["activation named", "function differentiates"],
)
@pytest.mark.parametrize("mode", ["graph", "eager", "xla"])
def test_recorded_spectra_equal_the_oracle(mode, layer, function, activation, shape):
    assert ks.register_layer(layer, activation=activation)(function) is function
    model, x, y = example(layer, shape)
    log = recorded(model, x, y, run_eagerly=mode == "eager", jit_compile=mode == "xla")
    assert_equal(log, "w", *oracle_of_dense(model.layers[-1], x, y))
    table = ks.coverage(model).set_index("weight")
    assert table["how"].to_dict() == {"w": "RegisteredRule", "b": ""}


def test_per_example_gradients_equal_the_oracle():
    ks.register_layer(Dense, activation="function")(product)
    model, x, y = example(Dense, (4, 5))
    log = recorded(model, x, y, spectra=ks.Spectra(gradients="per_example"))
    assert_equal(log, "w", *oracle_of_dense(model.layers[-1], x, y))


class Doubtful(L.Layer):
    """Counts its calls, drops inputs, adds a loss, and has an output-major weight."""

    def build(self, shape):
        self.w = self.add_weight(shape=(3, shape[-1]), name="w")
        self.count = self.add_weight(shape=(), initializer="zeros", trainable=False, name="count")
        self.dropout = L.Dropout(0.5, seed=1)

    def call(self, x, training=False):
        self.count.assign_add(1.0)
        self.add_loss(0.1 * ops.sum(x**2))
        self.dropped = self.dropout(x, training=training)
        return ops.matmul(self.dropped, ops.transpose(self.w))


@pytest.mark.parametrize("eager", [False, True])
def test_per_example_runs_a_layer_from_the_state_it_had_and_leaves_it_there(eager):
    ks.register_layer(Doubtful)(lambda layer, x, adjoint: {"w": (layer.dropped, adjoint)})
    found = []
    for gradients in ("factors", "per_example"):
        model, x, y = example(Doubtful, (5,))
        options = {"spectra": ks.Spectra(gradients=gradients), "run_eagerly": eager}
        table = recorded(model, x, y, **options).select(quantity="gradient")
        found.append((table.rows["frobenius_norm"].to_numpy(), table.sigma))
        assert float(model.layers[-1].count) == 2  # once in `example`, once in `fit`
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-5)
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("training", [False, True])
def test_checking_leaves_the_variables_of_a_layer_as_they_were(training):
    ks.register_layer(Doubtful)(lambda layer, x, adjoint: {"w": (layer.dropped, adjoint)})
    layer = Doubtful()
    layer(np.ones((N, 5), "f"))
    state = layer.dropout.seed_generator.state.numpy().copy()
    assert ks.check_layer(layer, np.ones((N, 5), "f"), training)["ok"].all()
    assert float(layer.count) == 1
    np.testing.assert_array_equal(layer.dropout.seed_generator.state.numpy(), state)


def test_a_weight_used_twice_has_the_rows_of_both_uses():
    class Twice(Dense):
        def build(self, shape):
            self.w = self.add_weight(shape=(shape[-1], self.units), name="w")

        def call(self, x):
            return ops.matmul(self.function(ops.matmul(x, self.w)), self.w)

    @ks.register_layer(Twice)
    def both(layer, x, adjoint):
        hidden = layer.function(ops.matmul(x, layer.w))
        first = ops.matmul(adjoint, ops.transpose(layer.w)) * (1 - hidden**2)
        return {"w": (ops.stack([x, hidden], 1), ops.stack([first, adjoint], 1))}

    x = np.random.default_rng(0).standard_normal((N, 5)).astype("f")
    assert ks.check_layer(Twice(5), x)["error"].max() < 1e-5
    model, x, y = example(lambda: Twice(5), (5,))
    norms = []
    for gradients in ("factors", "per_example"):
        log = recorded(model, x, y, spectra=ks.Spectra(gradients=gradients))
        rows = log.select(quantity="gradient").rows
        norms.append(rows["frobenius_norm"].to_numpy()[-len(GROUPS) :])
    np.testing.assert_allclose(*norms, rtol=1e-5)


class TwoWeights(L.Layer):
    """Takes two inputs, and multiplies one of them twice."""

    def build(self, shapes):
        self.first = self.add_weight(shape=(shapes[0][-1], 4), name="first")
        self.second = self.add_weight(shape=(2, 2, 3))  # without a name of its own

    def call(self, inputs):
        left, right = inputs
        hidden = ops.matmul(left, self.first)
        return ops.matmul(hidden * right, ops.reshape(self.second, (4, 3)))


def of_two_weights(layer, inputs, adjoint):
    left, right = inputs
    hidden = ops.matmul(left, layer.first)
    before = ops.matmul(adjoint, ops.transpose(ops.reshape(layer.second, (4, 3))))
    return {"first": (left, before * right), "second": (hidden * right, adjoint)}


@pytest.mark.parametrize("gradients", ["factors", "per_example"])
def test_a_layer_of_two_inputs_and_two_weights_one_named_by_its_attribute(gradients):
    ks.register_layer(TwoWeights)(of_two_weights)
    inputs = [keras.Input((5,)), keras.Input((4,))]
    layer = TwoWeights()
    model = ks.SpectralModel(inputs, layer(inputs))
    rng = np.random.default_rng(0)
    x = [rng.standard_normal((N, width)).astype("f") for width in (5, 4)]
    y = rng.standard_normal((N, 3)).astype("f")
    log = recorded(model, x, y, spectra=ks.Spectra(gradients=gradients))
    first, second = (np.asarray(w, float) for w in (layer.first, layer.second))
    second = second.reshape(4, 3)
    between = (x[0] @ first) * x[1]
    delta = 2 * (between @ second - y) / y.size
    assert_equal(log, "first", x[0].astype(float)[:, None], (delta @ second.T * x[1])[:, None])
    assert_equal(log, layer.second.name, between[:, None], delta[:, None])
    assert ks.check_layer(layer, x)["weight"].tolist() == ["first", layer.second.name]


def test_of_a_softmax_before_a_cross_entropy_the_activation_must_be_named():
    def softmax_layer():
        layer = Dense()
        layer.function = keras.activations.softmax
        return layer

    for activation in (None, "function"):
        ks.register_layer(Dense, activation=activation)(product)
        model, x, y = example(softmax_layer, (5,))
        model.compile("sgd", "categorical_crossentropy", spectra=1)
        target = np.eye(3)[y.argmax(axis=1)]
        if activation is None:
            with pytest.warns(UserWarning, match="logits of the softmax at its end"):
                model.fit(x, target, batch_size=N, verbose=0)
        else:
            layer = model.layers[-1]
            z = np.exp(x.astype(float) @ layer.w.numpy() + layer.b.numpy())
            model.fit(x, target, batch_size=N, verbose=0)
            delta = (z / z.sum(axis=1, keepdims=True) - target) / N
            found = model.spectral_log.singular_values(model.layers[-1].name, "adjoint")
            np.testing.assert_allclose(found, singular_values(delta, 3), atol=1e-6)


def rule_of(layer):
    layer.build((None, 5))
    return registry.rule_for(layer)[0]


def test_subclasses_that_keep_call_are_covered_and_others_are_captured_generically():
    class Kept(Dense):
        pass

    ks.register_layer(Dense, activation="function")(product)
    assert rule_of(Kept()).function is product
    assert rule_of(Inlined()) is registry.ANY_LAYER
    x = np.ones((N, 5), "f")
    assert ks.check_layer(Kept(), x)["rule"].tolist() == ["RegisteredRule"]
    assert ks.check_layer(Inlined(), x)["rule"].tolist() == ["GenericRule", "GenericRule"]


def test_the_nearest_class_and_the_last_function_win_over_all_others():
    class Kept(Dense):
        pass

    ks.register_layer(Kept, activation="function")(product)
    ks.register_layer(Dense)(product)
    assert rule_of(Kept()).activation == "function"
    ks.register_layer(Kept)(differentiated)
    assert rule_of(Kept()).function is differentiated
    ks.register_layer(L.Dense)(product)
    assert rule_of(L.Dense(2)).function is product


def test_a_frozen_weight_is_left_out():
    ks.register_layer(TwoWeights)(of_two_weights)
    layer = TwoWeights()
    layer.build([(None, 5), (None, 4)])
    layer.first.trainable = False
    x = [np.random.default_rng(0).standard_normal((N, width)) for width in (5, 4)]
    assert ks.check_layer(layer, x)["weight"].tolist() == [layer.second.name]


def test_mixed_precision_with_a_loss_scale_records_unscaled_gradients():
    ks.register_layer(Dense, activation="function")(product)
    found = []
    for policy in ("float32", "mixed_float16"):
        model, x, y = example(lambda: Dense(dtype=policy), (5,))  # noqa: B023
        optimizer = keras.optimizers.SGD(0.0)
        if policy != "float32":
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        model.compile(optimizer, "mse", spectra=ks.Spectra(gradients="per_example"))
        model.fit(x, y, groups=LABELS, batch_size=N, verbose=0)
        found.append(model.spectral_log.rows["frobenius_norm"].to_numpy())
    np.testing.assert_allclose(found[1], found[0], rtol=0.02)
    assert ks.check_layer(Dense(dtype="mixed_float16"), x)["ok"].all()


class Cell(Dense):
    """One step of a recurrent layer."""

    state_size = 3

    def call(self, x, states):
        output = self.function(ops.matmul(x, self.w) + states[0])
        return output, [output]


def test_each_call_of_a_layer_has_its_rows_and_one_in_a_loop_is_seen_at_the_layer_around_it():
    ks.register_layer(Dense, activation="function")(product)
    ks.register_layer(Cell, activation="function")(product)
    x = np.random.default_rng(0).standard_normal((N, 4, 5)).astype("f")
    for layer, rule in (
        (L.TimeDistributed(Dense()), "RegisteredRule"),
        (L.RNN(Cell(), unroll=True), "RegisteredRule"),
        (L.RNN(Cell()), "GenericRule"),
    ):
        table = ks.check_layer(layer, x).set_index("weight")
        assert table.loc["w", "rule"] == rule


# --- check_layer ---


def attention():
    query, value = keras.Input((4, 5)), keras.Input((3, 5))
    return keras.Model([query, value], L.MultiHeadAttention(2, 3, name="att")(query, value))


LAYERS = {
    "Dense": (lambda: L.Dense(3, activation="relu"), [(4, 5)], {"DenseRule"}),
    "Conv2D": (lambda: L.Conv2D(4, 3, groups=2, strides=2), [(5, 6, 4)], {"ConvolutionRule"}),
    "Conv1DTranspose": (
        lambda: L.Conv1DTranspose(3, 2),
        [(5, 4)],
        {"TransposedConvolutionRule"},
    ),
    "DepthwiseConv1D": (lambda: L.DepthwiseConv1D(2), [(5, 4)], {"DepthwiseConvolutionRule"}),
    "LSTM": (
        lambda: L.LSTM(3, dropout=0.4, recurrent_dropout=0.2),
        [(5, 4)],
        {"RecurrentRule"},
    ),
    "GRU": (lambda: L.GRU(3, reset_after=False), [(5, 4)], {"RecurrentRule"}),
    "Bidirectional": (lambda: L.Bidirectional(L.SimpleRNN(2)), [(3, 4)], {"RecurrentRule"}),
    "LayerNormalization": (lambda: L.LayerNormalization(), [(4, 5)], {"NormalizationRule"}),
    "BatchNormalization": (lambda: L.BatchNormalization(), [(5,)], {"NormalizationRule"}),
    "attention": (attention, [(4, 5), (3, 5)], {"EinsumDenseRule"}),
    "examples meet": (
        lambda: keras.Sequential([L.Dense(3), L.BatchNormalization(), L.Dense(2), L.Dropout(0.5)]),
        [(5,)],
        {"DenseRule", "NormalizationRule"},
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_what_the_package_captures_passes_and_is_left_as_it_was(name):
    make, shapes, rules = LAYERS[name]
    layer, rng = make(), np.random.default_rng(0)
    inputs = [rng.standard_normal((N, *shape)).astype("f") for shape in shapes]
    inputs = inputs if len(inputs) > 1 else inputs[0]
    layer(inputs)
    before = [v.numpy().copy() for v in layer.variables]
    table = ks.check_layer(layer, inputs, training=True)
    assert table.columns.tolist() == ["layer", "weight", "rule", "shape", "error", "ok"]
    assert set(table["rule"]) == rules
    assert table["ok"].all()
    assert table["error"].max() < 1e-5
    for was, variable in zip(before, layer.variables, strict=True):
        np.testing.assert_array_equal(was, variable.numpy())


def test_tokens_pass_by_their_singular_values():
    table = ks.check_layer(L.Embedding(9, 4), np.array([[1, 2, 1], [8, 0, 1], [3, 3, 5]]))
    assert table[["weight", "rule", "shape", "ok"]].values.tolist() == [
        ["embeddings", "EmbeddingRule", (9, 4), True]
    ]


def test_a_transposed_matrix_has_the_same_singular_values_and_passes():
    ks.register_layer(Dense, activation="function")(lambda _, x, adjoint: {"w": (adjoint, x)})
    assert ks.check_layer(Dense(), np.ones((N, 5), "f"))["ok"].all()


def checked(layer, function, activation=None, shape=(4, 5)):
    ks.register_layer(type(layer), activation=activation)(function)
    x = np.random.default_rng(0).standard_normal((N, *shape)).astype("f")
    return ks.check_layer(layer, x)


def shuffled(layer, x, adjoint):
    return {"w": (tf.reverse(x, [0]), tf.reverse(adjoint, [0]))}


WRONG = {
    "activation forgotten": (
        lambda: checked(Dense(name="d"), product),
        "`product` registered for `Dense` must return A and Δ whose product AᵀΔ is the gradient of "
        r"'w'. Received: for all examples one that differs by \S+ of its norm, more than 1e-04, "
        r"in layer 'd'. Try `register_layer\(Dense\)` with `activation=\"function\"`, by which the "
        "adjoint is ∂L/∂Z",
    ),
    "activation forgotten that has no name": (
        lambda: checked(Inlined(), product),
        "The adjoint is that of the output. Try to multiply it by the derivative",
    ),
    "activation differentiated twice": (
        lambda: checked(Dense(), differentiated, "function"),
        "without `activation=`, by which the adjoint is ∂L/∂output",
    ),
    "twice too large": (
        lambda: checked(Dense(), lambda _, x, d: {"w": (x, 2 * d)}, "function"),
        "for all examples one that differs .* The adjoint is ∂L/∂Z",
    ),
    "not finite": (
        lambda: checked(Dense(), lambda _, x, d: {"w": (x, d / 0)}, "function"),
        "differs by inf",
    ),
    "order of examples": (
        lambda: checked(Dense(), shuffled, "function"),
        "for some of the examples one that differs .* Try A and Δ whose first axis is the example",
    ),
    "size": (
        lambda: checked(Dense(), lambda _, x, d: {"w": (x[..., 1:], d)}),
        r"A \[n, …, i\] and Δ \[n, …, o\] for the weight 'w' of shape \(5, 3\), with n = 6, "
        r"as many positions in both, and i \* o = 15. "
        r"Received: A with n = 6, positions = 4, i = 4 \(shape \(6, 4, 4\)\); "
        r"Δ with n = 6, positions = 4, o = 3",
    ),
    "positions": (
        lambda: checked(Dense(), lambda _, x, d: {"w": (x[:, :3], d)}),
        "A with n = 6, positions = 3, .*; Δ with n = 6, positions = 4",
    ),
    "flattened": (
        lambda: checked(
            Dense(),
            lambda _, x, d: {"w": (ops.reshape(x, (-1, 5)), ops.reshape(d, (-1, 3)))},
        ),
        "with n = 6, .*Received: A with n = 24, positions = 1",
    ),
    "one axis": (
        lambda: checked(Dense(), lambda _, x, d: {"w": (x[0, 0], d)}),
        r"Received: A with shape \(5,\)",
    ),
    "no such weight": (
        lambda: checked(Dense(), lambda _, x, d: {"kernel": (x, d)}),
        r"must name weights of the layer's own. Received: 'kernel'. Try one of \['w', 'b'\]",
    ),
    "no dictionary": (
        lambda: checked(Dense(), lambda _, x, d: (x, d)),
        r"must return a dictionary .* Try `return \{'w': \(A, Δ\)\}`",
    ),
    "no pair": (
        lambda: checked(Dense(), lambda _, x, d: {"w": x}),
        r"must return \(A, Δ\), of floating point, for the weight 'w'",
    ),
    "integers": (
        lambda: checked(Dense(), lambda _, x, d: {"w": (ops.cast(x, "int32"), d)}),
        "Received: int32 and float32. Try `keras.ops.cast`",
    ),
    "size of the batch": (
        lambda: checked(
            Dense(), lambda _, x, d: {"w": (ops.reshape(x, [int(x.shape[0]), 4, 5]), d)}, "function"
        ),
        r"must also work where the number of examples is not known, .* Try `tf.shape\(x\)\[0\]`",
    ),
    "no such attribute": (
        lambda: checked(Dense(), product, "activation"),
        "`activation` must name the attribute of `Dense` .* 'activation', no such attribute",
    ),
    "attribute that is no function": (
        lambda: checked(Dense(), product, "units"),
        "`activation` must name the attribute of `Dense` .* Received: 'units', 3",
    ),
    "attribute that is not called": (
        lambda: checked(Inlined(), product, "function"),
        "which `Inlined.call` does not call",
    ),
    "two outputs": (
        lambda: checked(Pair(), product),
        "`Pair` must return one floating-point tensor to be registered without `activation=`",
    ),
    "a function in the place of a class": (
        lambda: ks.register_layer(product),
        r"`layer_class` must be a class of Keras layers. Received: <function product",
    ),
    "a layer in the place of a class": (lambda: ks.register_layer(Dense()), "Received: <Dense"),
    "no function": (
        lambda: ks.register_layer(Dense)("w"),
        "must be a function of three arguments. Received: 'w'",
    ),
    "too few arguments": (
        lambda: ks.register_layer(Dense)(lambda layer, x: {}),
        "must be a function of three arguments",
    ),
    "no name": (
        lambda: ks.register_layer(Dense, activation=ops.tanh)(product),
        "`activation` must be the name of an attribute of the layer, or None",
    ),
    "no weights": (
        lambda: ks.check_layer(L.ReLU(name="r"), np.ones((N, 5))),
        "must have trainable weights that can be captured. Received: r, a ReLU",
    ),
    "a class in the place of a layer": (
        lambda: ks.check_layer(L.Dense, np.ones((N, 5))),
        "`layer` must be a Keras layer",
    ),
    "no example": (
        lambda: ks.check_layer(
            keras.Sequential([L.Dense(2), L.Lambda(lambda x: ops.sum(x, 0))]), np.ones((N, 5))
        ),
        "must return floating-point tensors whose first axis is the example",
    ),
}


@pytest.mark.filterwarnings("ignore:The spectra of layer:UserWarning")
@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_a_readable_error(name):
    make, message = WRONG[name]
    with pytest.raises(ks.errors.LayerRuleError, match=re.compile(message, re.DOTALL)):
        make()


def test_a_wrong_function_stops_training_with_the_same_error():
    ks.register_layer(Dense)(lambda layer, x, d: {"w": (x[:, 1:], d)})
    model, x, y = example(Dense, (5,))
    model.compile("sgd", "mse", spectra=1)
    with pytest.raises(ks.errors.LayerRuleError, match=r"with n, as many .* A with n = unknown"):
        model.fit(x, y, batch_size=4, verbose=0)
    assert "call" not in model.layers[-1].__dict__


def test_the_names_are_found_before_keras_is_imported():
    code = "from keras_spectral import check_layer, coverage, introspect, register_layer"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_example_in_the_manual_runs():
    text = (Path(__file__).parents[2] / "docs" / "your_own_layer.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names = {}
    exec(code, names)
    table = names["table"]
    assert table["weight"].tolist() == ["v", "w"]
    assert table["rule"].unique().tolist() == ["RegisteredRule"]
    assert table["ok"].all()
    model, x, y = example(lambda: names["Bottleneck"](2, 4), (3, 5))
    assert len(recorded(model, x, y).select(quantity="gradient").rows) == 2 * len(GROUPS)
