"""A model of one layer, and data for it."""

import keras
import numpy as np

import keras_spectral as ks

N = 6
"""Examples."""


def example(make, shape):
    """Return `(model, x, y)` of a layer that `make()` returns, on inputs of a shape."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input(shape)
    model = ks.SpectralModel(inputs, make()(inputs))
    rng = np.random.default_rng(0)
    x = rng.standard_normal((N, *shape)).astype("f")
    return model, x, rng.standard_normal(model(x).shape).astype("f")
