"""Stacks of which a step keeps one tensor, with a part for each group.

Letters: `g` group, `r` record, `b` block (one group, or the whole batch, of one record).
"""

from dataclasses import dataclass

import numpy as np

from keras_spectral.spectra.solved import Solved, of_each_matrix


@dataclass(frozen=True)
class KeptByGroup:
    """What such stacks have in common. A stack adds `spectra_of`.

    Attributes:
        wanted: Tuple of pairs `(weight index, quantity)`.
    """

    wanted: tuple
    n_kept = 1

    def condensed(self, kept, masks):
        """Return what `r` steps kept, in one array `[r, …]`."""
        del masks
        return joined_steps(kept[0])

    def solved(self, condensed, mask):
        """Find the spectra of the whole batch and of every group present.

        Args:
            condensed: float64 array `[r, …]`, what `r` steps kept.
            mask: Boolean array `[r, n, g]`.

        Yields:
            `Solved`.
        """
        whole = np.ones((len(mask), 1), bool)
        records, groups = np.nonzero(np.concatenate([whole, mask.any(axis=1)], axis=1))
        sigma, *norms = self.spectra_of(condensed, records, groups)
        places = of_each_matrix(np.arange(len(self.wanted)), records, groups)
        flat = sigma.reshape(-1, sigma.shape[-1]), *(norm.reshape(-1) for norm in norms)
        yield Solved(*places, *flat)

    def spectra_of(self, kept, records, groups):
        """Return singular values `[b, p, d]` and Frobenius norms `[b, p]` of some blocks.

        Where not all is found, the norms `[b, p]` of what was missed come third.

        Args:
            kept: float64 array, what the step kept at `r` records.
            records: Integer array `[b]`.
            groups: Integer array `[b]`, 0 for the whole batch.
        """
        raise NotImplementedError


def joined_steps(arrays):
    """Return arrays of one shape as one array `[r, …]`, a single one without a copy.

    Args:
        arrays: Sequence of `r` arrays.
    """
    return arrays[0][None] if len(arrays) == 1 else np.stack(arrays)
