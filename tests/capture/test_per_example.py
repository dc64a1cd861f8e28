"""The reference by differentiation: for every layer, and without anything of the fast way."""

import keras
import numpy as np
import pytest

import keras_spectral as ks
from keras_spectral.capture.product import ProductRule
from keras_spectral.capture.recurrent import RecurrentRule

L = keras.layers

TOLERANCE = 2e-5
"""Of the norm: both ways round in float32, the loops of recurrent layers several times."""

N = 7
GROUPS = ["a", "b", "a", "b", "b", "a", "b"]


class OwnLayer(L.Layer):
    """A layer of no family, with a vector and a matrix."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="random_normal", name="scale")
        self.mix = self.add_weight(shape=(shape[-1], 3), name="mix")

    def call(self, x):
        return keras.ops.tanh(keras.ops.matmul(x * self.scale, self.mix))


NETWORKS = {
    "dense": ((5,), lambda: [L.Dense(4, activation="tanh", name="d")]),
    "convolution": ((8, 3), lambda: [L.Conv1D(4, 3, padding="same", name="c"), L.Flatten()]),
    "depthwise": ((6, 5, 3), lambda: [L.DepthwiseConv2D(2, name="c"), L.Flatten()]),
    "transposed": ((5, 3), lambda: [L.Conv1DTranspose(4, 3, name="c"), L.Flatten()]),
    "simple rnn": ((6, 3), lambda: [L.SimpleRNN(4, name="r")]),
    "lstm": ((6, 3), lambda: [L.LSTM(4, dropout=0.3, recurrent_dropout=0.3, name="r")]),
    "gru": ((6, 3), lambda: [L.GRU(4, reset_after=False, return_sequences=True), L.Flatten()]),
    "bidirectional": ((6, 3), lambda: [L.Bidirectional(L.LSTM(3))]),
    "batch normalisation": ((5,), lambda: [L.Dense(4), L.BatchNormalization(name="n")]),
    "a layer of one's own": ((5,), lambda: [OwnLayer(name="o")]),
    "attention": ((4, 6), lambda: [OneselfAttention(), L.Flatten()]),
}


class OneselfAttention(L.Layer):
    """Attention of a sequence to itself, in a layer around it."""

    def __init__(self):
        super().__init__(name="self")
        self.attention = L.MultiHeadAttention(2, 3, name="attention")

    def call(self, x):
        return self.attention(x, x)


def model_of(name):
    shape, layers = NETWORKS[name]
    keras.utils.clear_session()  # the same names each time
    keras.utils.set_random_seed(3)
    inputs = keras.Input(shape)
    x = inputs
    for layer in layers():
        x = layer(x)
    return ks.SpectralModel(inputs, L.Dense(3, activation="softmax", name="head")(x))


def log_of(name, gradients, eager=False):
    model = model_of(name)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((N, *NETWORKS[name][0])).astype("f")
    y = rng.integers(0, 3, N)
    spectra = ks.Spectra(gradients=gradients)
    loss = "sparse_categorical_crossentropy"
    model.compile(keras.optimizers.SGD(0.1), loss, spectra=spectra, run_eagerly=eager)
    model.fit(x, y, groups=GROUPS, batch_size=4, epochs=2, shuffle=False, verbose=0)
    return model.spectral_log


@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_equals_its_reference(name):
    fast, slow = log_of(name, "factors"), log_of(name, "per_example")
    columns = ["step", "layer", "weight", "quantity", "group", "n_examples", "n_rows"]
    assert fast.rows[columns].equals(slow.rows[columns])
    norm = fast.rows["frobenius_norm"].to_numpy()
    wide = [np.nan_to_num(log.sigma) for log in (fast, slow)]
    k = max(sigma.shape[1] for sigma in wide)
    wide = [np.pad(sigma, ((0, 0), (0, k - sigma.shape[1]))) for sigma in wide]
    largest = fast.rows.groupby(["step", "quantity"])["frobenius_norm"].transform("max")
    # The bias-like gradients of an attention's key are zero: noise is compared with the largest.
    scale = np.maximum(norm, 1e-2 * largest.to_numpy())
    assert (np.abs(wide[0] - wide[1]).max(axis=1) <= TOLERANCE * scale).all()
    assert (fast.rows["quantity"] == "gradient").sum() >= 2 * 2 * 3


def test_it_works_in_eager_mode_too():
    eager, graph = log_of("lstm", "per_example", eager=True), log_of("lstm", "per_example")
    np.testing.assert_allclose(
        np.nan_to_num(eager.sigma), np.nan_to_num(graph.sigma), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize(("name", "rule"), [("dense", ProductRule), ("lstm", RecurrentRule)])
def test_a_wrong_rule_does_not_reach_the_reference(monkeypatch, name, rule):
    factors = rule.factors

    def wrong(self, *args):
        found = factors(self, *args)
        return {key: own._replace(adjoint=3.0 * own.adjoint) for key, own in found.items()}

    right = log_of(name, "per_example").select(quantity="gradient")
    monkeypatch.setattr(rule, "factors", wrong)
    still_right = log_of(name, "per_example").select(quantity="gradient")
    np.testing.assert_array_equal(right.sigma, still_right.sigma)
