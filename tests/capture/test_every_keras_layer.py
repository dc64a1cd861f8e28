"""Every public layer of Keras is captured, or somebody has decided why not."""

import inspect

import keras
import numpy as np
import pytest

import keras_spectral as ks
from tests.capture.every_layer import FOREIGN, TRAINABLE, WITHOUT_TRAINABLE_WEIGHTS
from tests.capture.examples import N, example
from tests.oracles.mlp import singular_values

L = keras.layers
TOLERANCE = 1e-4
"""Of σ₁: the oracle is the difference of float32 weights before and after a step."""


def matrix_of(path, weight):
    """Return a weight as the matrix whose spectrum is recorded."""
    layer, name = path.split("/")[-2:]
    if layer in ("query", "key", "value"):
        return weight.reshape(len(weight), -1)
    if name == "depthwise_kernel" or f"{layer}/{name}".startswith("depthwise_conv"):
        return weight.reshape(-1, weight.shape[-2] * weight.shape[-1])
    return weight.reshape(-1, weight.shape[-1] if weight.ndim else 1)


def test_somebody_has_decided_about_every_public_layer():
    public = {
        member.__name__
        for _, member in inspect.getmembers(L, inspect.isclass)
        if issubclass(member, L.Layer)
    }
    assert public == {*TRAINABLE, *FOREIGN, *WITHOUT_TRAINABLE_WEIGHTS}


@pytest.mark.parametrize("name", sorted(set(TRAINABLE) - {"SpectralNormalization"}))
def test_every_weight_is_recorded_with_the_gradient_that_moves_it(name):
    model, x, y = example(*TRAINABLE[name])
    y *= 9  # gradients that float32 differences of weights can show
    model.compile(keras.optimizers.SGD(1.0), "mse", spectra=ks.Spectra(strict=True))
    before = {weight.path: weight.numpy() for weight in model.trainable_variables}
    model.fit(x, y, groups=np.arange(N) % 2, batch_size=N, verbose=0)
    rows = model.spectral_log.rows
    last = model.spectral_log.select(step=rows["step"].max(), quantity="gradient", group="all")
    moved = {w.path: before[w.path] - w.numpy() for w in model.trainable_variables}
    names = (last.rows["layer"] + "/" + last.rows["weight"]).tolist()
    unrecorded = set(moved) - set(names)
    assert all(path.endswith("/bias") for path in unrecorded), unrecorded
    for path, sigma in zip(names, last.sigma, strict=True):
        values = sigma[~np.isnan(sigma)]
        wanted = singular_values(matrix_of(path, moved[path].astype(float)), len(values))
        assert np.abs(values - wanted).max() <= TOLERANCE * max(wanted[0], 1e-3), path


def test_of_a_layer_whose_wrapper_sets_its_kernel_the_gradient_is_that_of_the_kernel_used():
    model, x, y = example(*TRAINABLE["SpectralNormalization"])
    model.compile(keras.optimizers.SGD(0.0), "mse", spectra=ks.Spectra(strict=True))
    model.fit(x, y, batch_size=N, verbose=0)
    kernel, bias = (np.asarray(v.value, float) for v in model.trainable_variables)
    wanted = singular_values(x.T @ (2 * (x @ kernel + bias - y) / y.size), 3)
    values = model.spectral_log.singular_values(
        "spectral_normalization/dense", "gradient", "all", 0
    )
    assert np.abs(values - wanted).max() <= TOLERANCE * wanted[0]
    assert set(model.spectral_log.rows["weight"]) == {"kernel"}
