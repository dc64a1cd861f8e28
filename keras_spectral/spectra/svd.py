"""Singular values of the matrices themselves, by `tf.linalg.svd` or in closed form.

Letters: `g` group (the whole batch first), `r` record, `d` singular values of the whole batch.

`tf.linalg.svd` runs in a `tf.function` on the device of the data. It has the full accuracy of
float64 data, half of whose digits a Gram matrix would lose. A form of matrix with known singular
values, such as a one-hot matrix, supplies them by a method `singular_values`.
"""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from keras_spectral.matrices.base import array
from keras_spectral.spectra.method import taken_from

FACTOR = 40.0
"""Cost of an SVD of a matrix `[i, o]`, in units of `max(i, o) min(i, o)²` multiplications."""


def cost(sizes):
    """Return the cost of a matrix, in multiplications of a float64 product.

    Args:
        sizes: `Sizes`.
    """
    if sizes.o:
        small, large = sorted((sizes.i, sizes.o))
        return sizes.products(sizes.i * sizes.o) + FACTOR * len(sizes.examples) * small**2 * large
    shapes = [sorted((rows, sizes.i)) for rows in sizes.rows]
    return sum(FACTOR * small**2 * large for small, large in shapes)


@dataclass(frozen=True)
class Svd:
    """One matrix, named by the one pair of `wanted`.

    The statistic is an array `[g, 1 + d]`: Frobenius norm, then singular values.

    Attributes:
        wanted: As in `Method`, of one pair.
        cost: As in `Method`.
    """

    wanted: tuple
    cost: float

    def reduce(self, weights, members, state):
        """Return the singular values of one step."""
        del state
        ((weight, quantity),) = self.wanted
        matrices, found = weights[weight], []
        for g in range(members.n_groups):
            there = members.sizes[g] > 0
            found.append(_spectrum(matrices, quantity, members, g) if there else np.zeros(1))
        longest = max(map(len, found))
        return np.stack([np.pad(each, (0, longest - len(each))) for each in found])

    def solve(self, statistics, masks):
        """Return the spectra of the whole batch and of every group present."""
        yield taken_from(statistics, masks)


def _spectrum(matrices, quantity, members, g):
    """Return the Frobenius norm and the singular values of one matrix."""
    if quantity == "gradient":
        matrix = matrices.gradient(members, g)
    else:
        known = getattr(matrices.of(quantity), "singular_values", None)
        if known is not None:
            sigma = known(members.examples(g))
            return np.concatenate([[np.linalg.norm(sigma)], sigma])
        matrix = matrices.of(quantity).rows(members.examples(g))
    return array(_svd(tf.convert_to_tensor(matrix)))


@tf.function(
    input_signature=[tf.TensorSpec([None, None], tf.float64)], autograph=False, jit_compile=False
)
def _svd(matrix):
    finite = tf.reduce_all(tf.math.is_finite(matrix))
    safe = tf.where(finite, matrix, 0.0)
    sigma = tf.linalg.svd(safe, compute_uv=False)
    norm = tf.sqrt(tf.reduce_sum(safe * safe))
    return tf.where(finite, tf.concat([norm[None], sigma], axis=0), float("nan"))
