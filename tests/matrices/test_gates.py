"""Parts of which every gate sees its own, against the blocks they stand for."""

import numpy as np
import pytest
import tensorflow as tf

from keras_spectral.matrices.base import Rows
from keras_spectral.matrices.gates import Gates

PRECISE = 1e-12
"""Absolute, of sums of a few tens of float64 numbers around 1."""

OUTPUTS = [(3, 2), (4,), (1, 1, 1, 1)]


def made(outputs, seed=0):
    """Return gates, their parts `[b, n, s, i]`, and an adjoint."""
    rng = np.random.default_rng(seed)
    parts, delta = rng.standard_normal((len(outputs), 6, 3, 2)), rng.standard_normal((6, 3, 5))
    tensor = tf.constant(np.concatenate(parts, axis=-1))
    return Gates(tensor, outputs), parts, delta[..., : sum(outputs)]


def of(x, examples):
    own = x if examples is None else x[examples]
    return own.reshape(-1, x.shape[-1])


@pytest.mark.parametrize("outputs", OUTPUTS)
def test_parts_stand_side_by_side(outputs, examples, device):
    gates, parts, _ = made(outputs)
    wanted = of(np.concatenate(parts, axis=-1), examples)
    assert (gates.n, gates.positions, gates.width) == (6, 3, 2 * len(outputs))
    assert gates.n_blocks == len(outputs)
    np.testing.assert_array_equal(gates.rows(examples), wanted)
    np.testing.assert_allclose(gates.gram(examples), wanted.T @ wanted, rtol=0, atol=PRECISE)


@pytest.mark.parametrize("outputs", OUTPUTS)
def test_each_part_meets_its_own_columns(outputs, examples, device):
    gates, parts, delta = made(outputs)
    columns = np.split(delta, np.cumsum(outputs)[:-1], axis=-1)
    blocks = [of(a, examples).T @ of(d, examples) for a, d in zip(parts, columns, strict=True)]
    wanted = np.concatenate(blocks, axis=-1)
    found = gates.product(Rows(tf.constant(delta)), examples)
    assert found.shape == gates.gradient_shape(sum(outputs)) == wanted.shape
    np.testing.assert_allclose(found, wanted, rtol=0, atol=PRECISE)


def test_energies_sum_the_squares_of_each_example(device):
    gates, parts, _ = made((3, 2))
    np.testing.assert_allclose(gates.energies(), np.sum(parts**2, axis=(0, 2, 3)), rtol=PRECISE)


def test_finite_puts_zeros_in_the_place_of_nan_and_inf(device):
    x = np.arange(24.0).reshape(2, 3, 4)
    broken = x.copy()
    broken[0, 1], broken[1, 2, 3], x[0, 1], x[1, 2, 3] = np.nan, np.inf, 0, 0
    found = Gates(tf.constant(broken), (2, 3)).finite()
    assert found.outputs == (2, 3)
    np.testing.assert_array_equal(found.rows(), x.reshape(-1, 4))


def test_calls_are_joined_in_their_order():
    (one, first, _), (other, second, _) = made((3, 2)), made((3, 2), seed=1)
    joined = np.concatenate([np.concatenate(parts, axis=-1) for parts in (first, second)], axis=1)
    np.testing.assert_array_equal(one.joined([other]).rows(), joined.reshape(-1, 4))
