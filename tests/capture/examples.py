"""A model of one layer, data for it, and whether what is recorded of it is right."""

import keras
import numpy as np

import keras_spectral as ks
from tests.oracles.mlp import singular_values

N = 6
"""Examples."""

MASK = np.array([[1, 0], [1, 1], [0, 1], [0, 0], [1, 0], [0, 1]], bool)
"""Two groups that overlap, neither with all."""

COLUMNS = {"all": np.ones(N, bool), "0": MASK[:, 0], "1": MASK[:, 1]}

TOLERANCE = 1e-5


class Standardised(keras.layers.Conv1D):
    """A subclass that multiplies by its kernel, standardised."""

    def convolution_op(self, inputs, kernel):
        kernel = keras.ops.convert_to_tensor(kernel)
        return super().convolution_op(inputs, kernel - keras.ops.mean(kernel, axis=(0, 1)))


def example(make, shape):
    """Return `(model, x, y)` of a layer that `make()` returns, on inputs of a shape."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input(shape)
    model = ks.SpectralModel(inputs, make()(inputs))
    rng = np.random.default_rng(0)
    x = rng.standard_normal((N, *shape)).astype("f")
    return model, x, rng.standard_normal(model(x).shape).astype("f")


def _as_matrix(gradient):
    return gradient.reshape(-1, gradient.shape[-1] if gradient.ndim else 1)


def recorded(model, x, y, **options):
    """Return the log of one step that trains nothing."""
    model.compile(keras.optimizers.SGD(0.0), "mean_squared_error", **{"spectra": 1, **options})
    model.fit(x, y, groups=MASK, batch_size=N, shuffle=False, verbose=0)
    return model.spectral_log


def assert_gradients_equal(log, weights, gradients):
    """Compare with per-example gradients `[n, *shape]` of each weight, in the log's order."""
    table = log.rows[log.rows["quantity"] == "gradient"]
    names = table[["layer", "weight"]].drop_duplicates().values.tolist()
    assert len(names) == len(weights)
    for (layer, name), of_examples in zip(names, gradients, strict=True):
        for group, members in COLUMNS.items():
            part = log.select(layer=layer, weight=name, quantity="gradient", group=group)
            matrix = _as_matrix(of_examples[members].sum(axis=0))
            wanted = singular_values(matrix, min(matrix.shape))
            scale = singular_values(_as_matrix(of_examples.sum(axis=0)), 1)[0]
            assert part.sigma.shape == (1, len(wanted)), (layer, name)
            assert np.abs(part.sigma[0] - wanted).max() <= TOLERANCE * scale, (layer, name, group)
