"""Models that compute in 16 bits: the slow reference and the fast path, both with a scaled loss."""

import keras
import numpy as np
import pytest

import keras_spectral as ks
from tests.capture.examples import MASK, N, example

L = keras.layers

LAYERS = {
    "Dense": (lambda **o: L.Dense(3, activation="tanh", **o), (4, 5)),
    "EinsumDense": (lambda **o: L.EinsumDense("nti,io->nto", (4, 3), **o), (4, 5)),
    "Conv1D": (lambda **o: L.Conv1D(3, 2, **o), (6, 5)),
    "Conv1DTranspose": (lambda **o: L.Conv1DTranspose(3, 2, **o), (6, 5)),
    "SeparableConv1D": (lambda **o: L.SeparableConv1D(3, 2, **o), (6, 5)),
    "DepthwiseConv1D": (lambda **o: L.DepthwiseConv1D(2, **o), (6, 5)),
    "SimpleRNN": (lambda **o: L.SimpleRNN(3, **o), (4, 5)),
    "GRU": (lambda **o: L.GRU(3, **o), (4, 5)),
    "LSTM": (lambda **o: L.LSTM(3, **o), (4, 5)),
}


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("name", LAYERS)
def test_the_reference_agrees_with_the_fast_path(name, policy):
    make, shape = LAYERS[name]
    logs = []
    for gradients in ("factors", "per_example"):
        model, x, y = example(lambda: make(dtype=policy), shape)
        optimizer = keras.optimizers.SGD(0.0)
        if policy == "mixed_float16":
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=256.0)
        model.compile(optimizer, "mse", spectra=ks.Spectra(gradients=gradients))
        model.fit(x, y, groups=MASK, batch_size=N, shuffle=False, verbose=0)
        log = model.spectral_log.select(quantity="gradient")
        logs.append(log)
    fast, slow = logs
    assert fast.rows["frobenius_norm"].gt(0).all()
    digits = 2e-2 if policy == "mixed_bfloat16" else 3e-3
    scale = np.nanmax(slow.sigma, axis=1, keepdims=True)
    assert np.nanmax(np.abs(fast.sigma - slow.sigma) / scale) < digits


def test_a_cell_may_compute_in_another_precision_than_its_loop():
    model, x, y = example(lambda: L.RNN(L.GRUCell(3, dtype="mixed_bfloat16")), (4, 5))
    model.compile("sgd", "mse", spectra=1)
    model.fit(x, y, groups=MASK, batch_size=N, shuffle=False, verbose=0)
    assert model.spectral_log.select(quantity="gradient").rows["frobenius_norm"].gt(0).all()
