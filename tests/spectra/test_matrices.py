"""Gram matrices of the whole batch and of groups, however groups share the examples."""

import numpy as np
import pytest
import tensorflow as tf
from keras_spectral.spectra.factors import Factors
from keras_spectral.spectra.matrices import smaller_grams
from keras_spectral.spectra.patches import Patches
from keras_spectral.spectra.rows import group_rows

N, S, OUT = 6, 5, 3
MASKS = {
    "each in one": [[1, 0], [0, 1], [0, 1], [1, 0], [0, 1], [1, 0]],
    "some in none": [[1, 0], [0, 1], [0, 0], [1, 0], [0, 1], [0, 0]],
    "some in both": [[1, 1], [0, 1], [1, 1], [1, 0], [0, 1], [1, 0]],
    "as many memberships as examples": [[1, 1], [0, 1], [0, 0], [1, 0], [0, 1], [1, 0]],
    "all in one, none in the other": [[1, 0]] * N,
}


def factors(kind):
    rng = np.random.default_rng(0)
    x, delta = rng.standard_normal((N, S, 4)), rng.standard_normal((N, S, OUT))
    part = tf.constant(x, tf.float32)
    if kind == "patches":
        part = Patches((part,), (2,), (1,), (1,), "same", 1)
        x = np.concatenate([x, np.pad(x[:, 1:], [(0, 0), (0, 1), (0, 0)])], axis=-1)
    return Factors(part, tf.constant(delta, tf.float32)), x, delta


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("kind", ["rows", "patches"])
def test_whole_and_groups_have_their_own(kind, mask):
    factor, x, delta = factors(kind)
    mask = np.array(MASKS[mask], bool)
    assert bool(group_rows(tf.constant(mask)).divide) == (mask.sum(axis=1) == 1).all()
    find = tf.function(lambda q, mask: smaller_grams(factor, q, group_rows(mask)))
    for quantity in ("activation", "adjoint", "gradient"):
        found = find(quantity, tf.constant(mask)).numpy()
        for own, gram in zip([np.ones(N, bool), *mask.T], found, strict=True):
            a, d = (part[own].reshape(-1, part.shape[-1]) for part in (x, delta))
            matrix = {"activation": a, "adjoint": d, "gradient": (a.T @ d)}[quantity]
            np.testing.assert_allclose(gram, matrix.T @ matrix, atol=1e-5)
