"""Singular values by `tf.linalg.svd` of the matrices themselves, in the graph, where the data is.

Letters: `g` group (the whole batch first), `r` record, `d` singular values of the whole batch.
"""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_spectral.spectra.matrices import group_matrix
from keras_spectral.spectra.solved import Solved, present_blocks


class DeviceSvd(NamedTuple):
    """One matrix.

    Attributes:
        wanted: Tuple of one pair `(weight index, quantity)`.
    """

    wanted: tuple
    n_kept = 1  # tensors that a step keeps

    def kept(self, factors, rows):
        """Return what a step keeps. Runs in the graph.

        Args:
            factors: List of `Factors`, one per weight.
            rows: `GroupRows`, or `None` if there are no groups.

        Returns:
            List of one float64 tensor `[1 + g, 1 + d]`: Frobenius norm, then singular values.
        """
        ((j, quantity),) = self.wanted
        whole = _spectra(group_matrix(factors[j], quantity, None))
        if rows is None:
            return [whole]
        groups = _spectra(group_matrix(factors[j], quantity, rows))
        missing = tf.shape(whole)[1] - tf.shape(groups)[1]
        return [tf.concat([whole, tf.pad(groups, [[0, 0], [0, missing]])], axis=0)]

    def condensed(self, kept):
        """Return the one array that a step kept."""
        return kept[0]

    def solved(self, condensed, mask):
        """Return the spectra of the whole batch and of every group present.

        Args:
            condensed: Sequence of `r` float64 arrays `[1 + g, 1 + d]`.
            mask: Boolean array `[r, n, g]`.

        Yields:
            `Solved`.
        """
        records, groups = present_blocks(mask)
        spectra = np.stack(condensed)
        found = spectra[records, groups][:, None]
        yield Solved(self.wanted, records, groups, found[..., 1:], found[..., 0])


def _spectra(matrix):
    finite = tf.reduce_all(tf.math.is_finite(matrix), axis=[1, 2])[:, None]
    safe = tf.where(finite[..., None], matrix, 0.0)
    sigma = tf.linalg.svd(safe, compute_uv=False)
    norm = tf.sqrt(tf.reduce_sum(safe * safe, axis=[1, 2]))[:, None]
    nan = tf.constant(float("nan"), tf.float64)
    return tf.where(finite, tf.concat([norm, sigma], axis=1), nan)
