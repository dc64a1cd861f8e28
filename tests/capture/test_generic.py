"""Any layer with trainable weights, against per-example tapes and NumPy."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_spectral as ks
from tests.capture.examples import (
    COLUMNS,
    MASK,
    N,
    Standardised,
    assert_gradients_equal,
    example,
    recorded,
)
from tests.oracles.layers import example_gradients
from tests.oracles.mlp import singular_values

TOLERANCE = 1e-5

L = keras.layers


class Affine(keras.layers.Layer):
    """A layer of no family: a scalar, a vector and a tensor of weights, none called kernel."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")
        self.shift = self.add_weight(shape=(shape[-1],), initializer="zeros", name="shift")
        self.mix = self.add_weight(shape=(2, shape[-1], 3), name="mix")

    def call(self, x):
        return self.scale * keras.ops.einsum("nti,kio->nto", x + self.shift, self.mix**2)


class Reversed(L.RNN):
    """A recurrent layer that runs its loop in its own way."""

    def inner_loop(self, sequences, initial_state, mask, training=False):
        return super().inner_loop(sequences[:, ::-1], initial_state, mask, training)


class Chosen(L.Layer):
    """Multiplies some tokens alone: how many is not known before."""

    def __init__(self):
        super().__init__()
        self.dense = L.Dense(3)

    def call(self, x):
        chosen = x[..., 0] > 0
        found = self.dense(tf.boolean_mask(x, chosen))
        return tf.scatter_nd(tf.where(chosen), found, [*keras.ops.shape(x)[:2], 3])


class Turned(L.Layer):
    """Multiplies where another axis leads, of a size that batches may well have."""

    def __init__(self):
        super().__init__()
        self.dense = L.Dense(3)

    def call(self, x):
        found = self.dense(keras.ops.transpose(x, (1, 0, 2)))
        return keras.ops.transpose(found, (1, 0, 2))


class Queries(L.Layer):
    """Meets every example with queries that are learned elsewhere."""

    def build(self, _):
        self.mix = self.add_weight(shape=(5, 3), name="mix")

    def call(self, queries, x):
        seen = keras.ops.matmul(x, self.mix)
        return keras.ops.matmul(
            keras.ops.matmul(queries, keras.ops.transpose(seen, (0, 2, 1))), seen
        )


class Perceiver(L.Layer):
    """Has queries, and a layer that meets them."""

    def __init__(self):
        super().__init__()
        self.meet = Queries()

    def build(self, _):
        self.queries = self.add_weight(shape=(9, 3), name="queries", trainable=False)

    def call(self, x):
        return self.meet(self.queries, x)


# layer, shape of one input
CASES = {
    "LayerNormalization of two axes": (lambda: L.LayerNormalization([1, 2]), (4, 5)),
    "PReLU": (lambda: L.PReLU(), (4, 5)),
    "stacked cells": (lambda: L.RNN([L.GRUCell(3), L.LSTMCell(2)]), (5, 4)),
    "ConvLSTM1D": (lambda: L.ConvLSTM1D(2, 2), (3, 5, 2)),
    "ConvLSTM2D": (lambda: L.ConvLSTM2D(2, 2, return_sequences=True), (2, 4, 3, 2)),
    "a GRU in a loop of one's own": (lambda: Reversed(L.GRUCell(3)), (4, 2)),
    "TimeDistributed": (lambda: L.TimeDistributed(L.LayerNormalization()), (5, 4)),
    "a layer of one's own": (lambda: Affine(), (4, 5)),
    "chosen tokens": (lambda: Chosen(), (4, 5)),
    "another axis leads": (lambda: Turned(), (7, 5)),
    "what a convolution uses": (lambda: Standardised(3, 2), (5, 4)),
    "queries first": (lambda: Perceiver(), (4, 5)),
}


def rows(array):
    return array.reshape(-1, array.shape[-1])


def _cases_and_modes():
    """Yield every case in every mode; the quick suite takes the modes by turns."""
    for (number, name), (turn, mode) in itertools.product(
        enumerate(CASES), enumerate(("graph", "eager", "xla"))
    ):
        yield pytest.param(name, mode, marks=pytest.mark.slow if (number - turn) % 3 else [])


@pytest.mark.parametrize(("name", "mode"), list(_cases_and_modes()))
def test_group_gradients_of_every_weight_equal_the_oracle(name, mode):
    model, x, y = example(*CASES[name])
    log = recorded(model, x, y, run_eagerly=mode == "eager", jit_compile=mode == "xla")
    weights = model.trainable_variables
    gradients = example_gradients(model, x, y, [weight.value for weight in weights])
    assert_gradients_equal(log, weights, gradients)


@pytest.mark.parametrize("name", CASES)
def test_activation_and_adjoint_are_those_of_input_and_output(name):
    model, x, y = example(*CASES[name])
    log = recorded(model, x, y)
    delta = 2 * (np.asarray(model(x), float) - y) / y.size
    first = log.rows.iloc[0]["layer"]
    for quantity, array in (("activation", x.astype(float)), ("adjoint", delta)):
        for group, members in COLUMNS.items():
            values = log.singular_values(first, quantity, group, 0)
            wanted = singular_values(rows(array[members]), len(values))
            assert len(values) == min(rows(array[members]).shape)
            assert np.abs(values - wanted).max() <= TOLERANCE * wanted[0], (quantity, group)


def test_a_layer_called_twice_in_a_row_has_the_gradients_of_both_calls_once():
    layer, inputs = L.PReLU(name="twice"), keras.Input((5,))
    model = ks.SpectralModel(inputs, layer(L.Dense(5, activation="tanh")(layer(inputs))))
    rng = np.random.default_rng(0)
    layer.set_weights([rng.standard_normal(5)])
    x, y = (rng.standard_normal((N, 5)).astype("f") for _ in range(2))
    log = recorded(model, x, y, spectra=ks.Spectra(layers="twice"))
    gradients = example_gradients(model, x, y, [weight.value for weight in layer.weights])
    assert_gradients_equal(log, layer.weights, gradients)


def test_tokens_have_no_activation_but_a_gradient():
    inputs = keras.Input((3,), dtype="int32")
    model = ks.SpectralModel(inputs, L.ReversibleEmbedding(7, 4)(inputs))
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 7, (N, 3)), rng.standard_normal((N, 3, 4)).astype("f")
    log = recorded(model, x, y)
    assert list(log.rows["quantity"].unique()) == ["adjoint", "gradient"]
    delta = 2 * (np.asarray(model(x), float) - y) / y.size
    of_examples = np.einsum("ntv,ntw->nvw", np.eye(7)[x], delta)
    assert_gradients_equal(log, model.trainable_variables, [of_examples])


class Tied(keras.Model):
    """A language model whose head is its embedding."""

    def __init__(self):
        super().__init__()
        self.tokens, self.hidden = L.ReversibleEmbedding(7, 4), L.Dense(4, activation="tanh")

    def call(self, ids):
        return self.tokens(self.hidden(self.tokens(ids)), reverse=True)


class TiedByHand(keras.Model):
    """The same, without Keras knowing."""

    def __init__(self):
        super().__init__()
        self.tokens, self.hidden = L.Embedding(7, 4), L.Dense(4, activation="tanh")

    def call(self, ids):
        hidden = self.hidden(self.tokens(ids))
        return keras.ops.matmul(hidden, keras.ops.transpose(self.tokens.embeddings))


@pytest.mark.parametrize("kind", [Tied, TiedByHand])
def test_a_head_tied_to_the_embedding_has_the_gradients_of_both_uses(kind):
    model = ks.SpectralModel.from_model(kind())
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 7, (N, 3)), rng.standard_normal((N, 3, 7)).astype("f")
    log = recorded(model, x, y, spectra=ks.Spectra(strict=True, layers="*embedding"))
    embeddings = model.wrapped_model.tokens.embeddings
    assert "activation" not in set(log.rows["quantity"])  # two uses have no common A
    with tf.GradientTape() as tape:  # dense, not as slices
        table = tf.identity(embeddings.value)
        tape.watch(table)
        hidden = model.wrapped_model.hidden(tf.gather(table, x))
        losses = tf.square(hidden @ tf.transpose(table) - y) / y.size
        parts = tf.reduce_sum(losses, axis=[1, 2])
    assert_gradients_equal(log, [embeddings], [np.asarray(tape.jacobian(parts, table), float)])


def test_a_softmax_within_is_recorded_by_its_logits():
    class Classifier(Affine):
        def call(self, x):
            return keras.activations.softmax(super().call(x)[:, 0])

    model, x, _ = example(Classifier, (4, 5))
    y = np.eye(3)[np.arange(N) % 3]
    model.compile(keras.optimizers.SGD(0.0), "categorical_crossentropy", spectra=1)
    model.fit(x, y, groups=MASK, batch_size=N, shuffle=False, verbose=0)
    log = model.spectral_log
    delta = (np.asarray(model(x), float) - y) / N
    values = log.singular_values(log.layers[0], "adjoint", "1", 0)
    wanted = singular_values(delta[MASK[:, 1]], len(values))
    assert np.abs(values - wanted).max() <= TOLERANCE * wanted[0]
    assert log.select(quantity="gradient").rows["frobenius_norm"].min() > 0


def test_only_recorded_steps_pay_for_group_gradients_and_weights_stay_those_of_a_plain_model():
    def network():
        keras.utils.set_random_seed(0)
        inputs = keras.Input((6, 3))
        x = L.Conv1D(4, 3, activation="relu")(inputs)
        return inputs, L.Dense(1)(L.LSTM(4)(L.BatchNormalization()(x)))

    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((40, 6, 3)).astype("f"), rng.standard_normal((40, 1)).astype("f")
    weights = []
    for make, options in ((keras.Model, {}), (ks.SpectralModel, {"spectra": 3})):
        model = make(*network())
        model.compile("adam", "mse", **options)
        extra = {"groups": rng.choice(["a", "b"], 40)} if options else {}
        model.fit(x, y, batch_size=10, epochs=2, shuffle=False, verbose=0, **extra)
        weights.append(model.get_weights())
    assert model.spectral_log.steps == [0, 3, 6]
    for plain, watched in zip(*weights, strict=True):
        np.testing.assert_array_equal(plain, watched)


def test_mixed_precision_with_a_loss_scale_records_unscaled_gradients():
    found = []
    for policy in ("float32", "mixed_float16"):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((6, 3))
        x = L.LayerNormalization(dtype=policy)(L.Conv1D(4, 3, dtype=policy)(inputs))
        model = ks.SpectralModel(inputs, L.Flatten(dtype="float32")(x))
        rng = np.random.default_rng(0)
        x, y = (rng.standard_normal((N, k, w)).astype("f") for k, w in ((6, 3), (1, 16)))
        optimizer = keras.optimizers.SGD(0.0)
        if policy != "float32":
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        model.compile(optimizer, "mse", spectra=1)
        model.fit(x, y[:, 0], groups=MASK, batch_size=N, verbose=0)
        found.append(model.spectral_log.rows["frobenius_norm"].to_numpy())
    assert len(found[0]) > 20
    np.testing.assert_allclose(found[1], found[0], rtol=0.02, atol=0.002)


def test_a_layer_that_raises_is_left_as_it_was():
    class Broken(Affine):
        def call(self, x):
            raise RuntimeError("broken")

    layer = Broken()
    model = keras.Sequential([L.Conv1D(5, 1, name="before"), layer])
    model = ks.SpectralModel.from_model(model)
    model.compile("sgd", "mse", spectra=1)
    before = [dict(part.__dict__) for part in (model.wrapped_model.layers[0], layer)]
    with pytest.raises(RuntimeError, match="broken"):
        model.fit(np.ones((4, 4, 5), "f"), np.ones((4, 4, 3), "f"), verbose=0)
    assert all("call" not in part.__dict__ for part in (model.wrapped_model.layers[0], layer))
    assert all("call" not in part for part in before)


@pytest.mark.parametrize("make", [L.LayerNormalization, L.GroupNormalization, Affine, L.PReLU])
def test_weights_equal_those_of_a_plain_model(make):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((22, 7, 32)).astype("f"), rng.standard_normal((22, 3)).astype("f")
    weights = []
    for model_class, options in ((keras.Model, {}), (ks.SpectralModel, {"spectra": 1})):
        # Layers are named alike then: TensorFlow adds in the order of names.
        keras.backend.clear_session(free_memory=False)
        keras.utils.set_random_seed(0)
        inputs = keras.Input((7, 32))
        hidden = make()(L.Conv1D(32, 3, activation="tanh")(inputs))
        model = model_class(inputs, L.Dense(3)(L.GlobalAveragePooling1D()(hidden)), name="net")
        model.compile("adam", "mse", **options)
        model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)
        weights.append(model.get_weights())
    for plain, watched in zip(*weights, strict=True):
        np.testing.assert_array_equal(plain, watched)


class Eager(L.Layer):
    """Can make no graph, and folds time into the batch."""

    def __init__(self):
        super().__init__()
        self.dense = L.Dense(3)

    def call(self, x):
        n = len(x.numpy()) if tf.executing_eagerly() and hasattr(x, "numpy") else int(x.shape[0])
        found = self.dense(keras.ops.reshape(x, (-1, 5)))
        return keras.ops.reshape(found, (n, 4, 3))


def test_where_no_graph_can_be_made_rows_that_are_no_examples_are_told_of():
    class Model(ks.SpectralModel):
        def __init__(self):
            super().__init__()
            self.eager, self.last = Eager(), L.Dense(3, name="last")

        def call(self, x):
            return self.last(self.eager(x))

    x = np.random.default_rng(0).standard_normal((N, 4, 5)).astype("f")
    model = Model()
    model(x)
    model.compile("sgd", "mse", spectra=1, run_eagerly=True)
    Eager.call, call = _refusing_graphs(Eager.call), Eager.call
    try:
        with pytest.warns(UserWarning, match="does not lead with the example"):
            model.fit(x, x[..., :3], groups=MASK, batch_size=N, verbose=0)
    finally:
        Eager.call = call
    assert model.spectral_log.layers == ["last"]


def _refusing_graphs(call):
    def refusing(self, x):
        assert tf.executing_eagerly()
        return call(self, x)

    return refusing
