"""Ranks that arXiv 2402.06751 knows before training: linear RNN, convolution, leaky ReLU.

Those of fully connected networks are in `test_records_equal_oracles.py`. All layers compute in
float64, so that a singular value is far above its tolerance or far below.
"""

from unittest import mock

import keras
import numpy as np
import pytest

import keras_spectral as ks
from tests.oracles.mlp import DERIVATIVES, activations_and_adjoints, singular_values

L = keras.layers

TOLERANCE = 1e-10
"""Of sigma_1. In 360 steps from eight seeds no singular value that counts was below 9e-7, and
rounding left none above 2e-15."""

STEPS = 3
GROUPS = ["a", "b", "c"]

UNITS, FEATURES, CLASSES = 24, 10, 3
SEQUENCES = 64
"""In a batch: more than `UNITS`, so that their number bounds no rank."""

EXAMPLES, LENGTH, CHANNELS, KERNEL, FILTERS = 2, 32, 4, 3, 64


def recorded(model, x, y, groups, batch_size, quantities="gradient"):
    loss = keras.losses.SparseCategoricalCrossentropy(dtype="float64")
    model.compile(keras.optimizers.SGD(0.01), loss, spectra=ks.Spectra(quantities=quantities))
    model.fit(x, y, groups=groups, batch_size=batch_size, shuffle=False, verbose=0)
    return model.spectral_log


def softmax(classes, x):
    return L.Dense(classes, activation="softmax", dtype="float64", name="out")(x)


def gradient_ranks(log, layer, weight, group):
    """Return the rank at every step."""
    spectra = [
        log.singular_values(layer, "gradient", group, step, weight=weight) for step in range(STEPS)
    ]
    return [int((values > TOLERANCE * values[0]).sum()) for values in spectra]


@pytest.mark.parametrize(
    ("length", "rank_of_input_weight", "rank_of_recurrent_weight"),
    [(1, 2, 0), (2, 4, 2), (3, 6, 4), (4, 8, 6), (8, 10, 14), (16, 10, 24)],
)
def test_gradient_ranks_of_a_linear_rnn_grow_with_the_sequence(
    length, rank_of_input_weight, rank_of_recurrent_weight
):
    inputs = keras.Input((length, FEATURES), dtype="float64")
    last = L.SimpleRNN(UNITS, activation="linear", dtype="float64", name="rnn")(inputs)
    model = ks.SpectralModel(inputs, softmax(CLASSES, last))
    rng = np.random.default_rng(length)
    n = STEPS * SEQUENCES
    x, y = rng.standard_normal((n, length, FEATURES)), np.arange(n) % CLASSES
    log = recorded(model, x, y, rng.choice(GROUPS, n), SEQUENCES)
    wanted = {"kernel": rank_of_input_weight, "recurrent_kernel": rank_of_recurrent_weight}
    for weight, rank in wanted.items():
        assert gradient_ranks(log, "rnn/simple_rnn_cell", weight, "all") == [rank] * STEPS
        for group in GROUPS:
            assert max(gradient_ranks(log, "rnn/simple_rnn_cell", weight, group)) <= rank


@pytest.mark.parametrize(
    ("stride", "rank", "rank_of_one_example"),
    [(1, 12, 12), (2, 12, 12), (4, 12, 8), (8, 8, 4), (16, 4, 2)],
)
def test_gradient_ranks_of_a_convolution_fall_with_the_positions_of_its_output(
    stride, rank, rank_of_one_example
):
    inputs = keras.Input((LENGTH, CHANNELS), dtype="float64")
    conv = L.Conv1D(FILTERS, KERNEL, stride, "same", dtype="float64", name="conv")
    model = ks.SpectralModel(inputs, softmax(CLASSES, L.Flatten(dtype="float64")(conv(inputs))))
    rng = np.random.default_rng(stride)
    n = STEPS * EXAMPLES
    x, y = rng.standard_normal((n, LENGTH, CHANNELS)), np.arange(n) % CLASSES
    log = recorded(model, x, y, ["first", "second"] * STEPS, EXAMPLES)
    assert gradient_ranks(log, "conv", "kernel", "all") == [rank] * STEPS
    for group in ("first", "second"):
        assert max(gradient_ranks(log, "conv", "kernel", group)) <= rank_of_one_example


def leaky_net(widths, slope):
    inputs = x = keras.Input((widths[0],), dtype="float64")
    for j, width in enumerate(widths[1:-1]):
        x = L.Dense(
            width,
            activation=lambda z: keras.ops.leaky_relu(z, slope),
            bias_initializer="random_normal",
            dtype="float64",
            name=f"d{j}",
        )(x)
    return ks.SpectralModel(inputs, softmax(widths[-1], x))


def leaky_oracle(model, slope, x, y):
    """Return A and Δ of every layer."""
    leaky = (lambda z: np.where(z > 0, z, slope * z), lambda z: np.where(z > 0, 1, slope))
    names = ["leaky"] * len(model.layers)
    with mock.patch.dict(DERIVATIVES, leaky=leaky):
        return activations_and_adjoints(model.get_weights(), names, x, y)


@pytest.mark.parametrize("seed", range(8))
def test_the_tail_of_a_leaky_relu_adjoint_is_at_most_the_masked_part(seed):
    rng = np.random.default_rng(seed)
    widths, classes = rng.integers(6, 25, rng.integers(2, 5)).tolist(), int(rng.integers(2, 5))
    slope, n = float(rng.random(dtype="f")), int(rng.integers(6, 41))
    x, y = rng.standard_normal((n, widths[0])).astype("f"), rng.integers(0, classes, n)
    keras.utils.set_random_seed(seed)
    model = leaky_net([*widths, classes], slope)
    kernels = model.get_weights()[0::2]
    activations, adjoints = leaky_oracle(model, slope, x, y)
    log = recorded(model, x, y, None, n, "adjoint")
    for j in range(len(widths) - 1):
        behind, positive = adjoints[j + 1] @ kernels[j + 1].T, activations[j + 1] > 0
        rank, atol = np.linalg.matrix_rank(behind), TOLERANCE * singular_values(behind, 1)[0]
        values = log.singular_values(f"d{j}", "adjoint")
        whole = singular_values(behind * np.where(positive, 1, slope), len(values))
        bound = (1 - slope) * singular_values(behind * positive, len(values) - rank)
        np.testing.assert_allclose(values, whole, rtol=0, atol=atol)
        assert (values[rank:] <= bound + atol).all()


def test_the_tail_of_a_leaky_relu_adjoint_vanishes_linearly_as_the_slope_goes_to_one():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((32, FEATURES)).astype("f"), np.arange(32) % CLASSES

    def tail(slope):
        keras.utils.set_random_seed(0)
        log = recorded(leaky_net([FEATURES, UNITS, CLASSES], slope), x, y, None, 32, "adjoint")
        values = log.singular_values("d0", "adjoint")
        return values[CLASSES - 1 :] / values[0]

    assert tail(1.0).max() < TOLERANCE
    coarse, fine = tail(0.99) / 0.01, tail(0.999) / 0.001
    assert fine[0] > 0.1
    np.testing.assert_allclose(coarse, fine, rtol=0.05)
