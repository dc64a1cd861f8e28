"""Gram matrices of features, one for each group: cheaper where rows outnumber features.

Letters: `g` group (the whole batch first), `r` record, `p` matrices of a stack, `d` features.

`AᵀA` for an activation, `ΔᵀΔ` for an adjoint, and the smaller of `GᵀG` and `GGᵀ` for a gradient.
"""

from dataclasses import dataclass

import numpy as np

from keras_spectral.spectra.eigen import singular_values
from keras_spectral.spectra.solved import Solved, present_blocks


@dataclass(frozen=True)
class FeatureGrams:
    """Matrices whose smaller Gram matrices have one size.

    A step keeps one float64 tensor `[p, 1 + g, d, d]`.

    Attributes:
        wanted: Tuple of `p` pairs `(weight index, quantity)`.
    """

    wanted: tuple
    n_kept = 1

    def condensed(self, kept):
        """Return the one array that a step kept."""
        return kept[0]

    def solved(self, condensed, mask):
        """Find the spectra of the whole batch and of every group present.

        Args:
            condensed: Sequence of `r` float64 arrays `[p, 1 + g, d, d]`.
            mask: Boolean array `[r, n, g]`.

        Yields:
            `Solved`.
        """
        records, groups = present_blocks(mask)
        grams = np.stack(condensed)
        yield Solved(self.wanted, records, groups, *singular_values(grams[records, :, groups]))
