"""Singular values by `tf.linalg.svd` of the matrices themselves, in the graph, where the data is.

Letters: `g` group (the whole batch first), `r` record, `d` singular values of the whole batch.
"""

from dataclasses import dataclass

import numpy as np

from keras_spectral.spectra.solved import Solved, present_blocks


@dataclass(frozen=True)
class DeviceSvd:
    """One matrix.

    A step keeps one float64 tensor `[1 + g, 1 + d]`: Frobenius norm, then singular values.

    Attributes:
        wanted: Tuple of one pair `(weight index, quantity)`.
    """

    wanted: tuple
    n_kept = 1

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
        found = np.stack(condensed)[records, groups][:, None]
        yield Solved(self.wanted, records, groups, found[..., 1:], found[..., 0])
