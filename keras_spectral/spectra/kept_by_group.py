"""Stacks of which a step keeps one tensor, with a part for each group.

Letters: `g` group, `r` record, `b` block (one group, or the whole batch, of one record).
"""

from dataclasses import dataclass

import numpy as np

from keras_spectral.spectra.solved import Solved


@dataclass(frozen=True)
class KeptByGroup:
    """What such stacks have in common. A stack adds `spectra_of`.

    Attributes:
        wanted: Tuple of pairs `(weight index, quantity)`.
    """

    wanted: tuple
    n_kept = 1

    def condensed(self, kept):
        """Return the one array that a step kept."""
        return kept[0]

    def solved(self, condensed, mask):
        """Find the spectra of the whole batch and of every group present.

        Args:
            condensed: Sequence of `r` float64 arrays, what a step kept.
            mask: Boolean array `[r, n, g]`.

        Yields:
            `Solved`.
        """
        whole = np.ones((len(mask), 1), bool)
        records, groups = np.nonzero(np.concatenate([whole, mask.any(axis=1)], axis=1))
        sigma, norm = self.spectra_of(np.stack(condensed), records, groups)
        yield Solved(self.wanted, records, groups, sigma, norm)

    def spectra_of(self, kept, records, groups):
        """Return singular values `[b, p, d]` and Frobenius norms `[b, p]` of some blocks.

        Args:
            kept: float64 array, what the step kept at `r` records.
            records: Integer array `[b]`.
            groups: Integer array `[b]`, 0 for the whole batch.
        """
        raise NotImplementedError
