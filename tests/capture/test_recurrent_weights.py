"""Recurrent layers, watched: the trained weights are bit for bit those of a plain model."""

import keras
import numpy as np
import pytest

import keras_spectral as ks

L = keras.layers

CELLS = {
    "SimpleRNN": lambda: L.SimpleRNNCell(3),
    "LSTM": lambda: L.LSTMCell(3),
    "LSTM, gate by gate": lambda: L.LSTMCell(3, implementation=1),
    "GRU": lambda: L.GRUCell(3),
    "GRU, gate by gate": lambda: L.GRUCell(3, implementation=1),
    "GRU, states dropped": lambda: L.GRUCell(3, recurrent_dropout=0.3),
    "GRU, reset before": lambda: L.GRUCell(3, reset_after=False),
}


MIXED = ("mixed_float16", "mixed_bfloat16")
QUICK = {
    *((name, "float32") for name in ("SimpleRNN", "LSTM, gate by gate", "GRU, states dropped")),
    ("LSTM", "mixed_float16"),
    ("GRU, gate by gate", "mixed_bfloat16"),
}


def _cases():
    """Yield every cell under every policy; the quick suite takes few of them."""
    for name in CELLS:
        for policy in ("float32", *MIXED):
            marks = [] if (name, policy) in QUICK else [pytest.mark.slow]
            yield pytest.param(name, policy, marks=marks)


@pytest.fixture
def policy(request):
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy("float32")


@pytest.mark.parametrize(("name", "policy"), list(_cases()), indirect=["policy"])
def test_weights_equal_those_of_a_plain_model(name, policy):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((22, 5, 3)).astype("f"), rng.integers(0, 2, 22)
    weights = []
    for model_class, options in ((keras.Model, {}), (ks.SpectralModel, {"spectra": 1})):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((5, 3))
        hidden = L.RNN(CELLS[name](), name="rnn")(L.Conv1D(3, 1, name="conv")(inputs))
        outputs = L.Dense(2, activation="softmax", dtype="float32", name="out")(hidden)
        model = model_class(inputs, outputs, name="net")
        model.compile("adam", "sparse_categorical_crossentropy", **options)
        model.fit(x, y, batch_size=8, epochs=2, shuffle=False, verbose=0)
        weights.append(model.get_weights())
    assert {"kernel", "recurrent_kernel"} <= set(model.spectral_log.rows["weight"])
    for plain, watched in zip(*weights, strict=True):
        np.testing.assert_array_equal(plain, watched)
