"""Gram matrices of features, one for each group: cheaper where rows outnumber features.

Letters: `g` group (the whole batch first), `r` record, `p` matrices of a stack, `d` features, `b`
block.

`AᵀA` for an activation, `ΔᵀΔ` for an adjoint, and the smaller of `GᵀG` and `GGᵀ` for a gradient.
"""

from keras_spectral.spectra.eigen import singular_values
from keras_spectral.spectra.kept_by_group import KeptByGroup


class FeatureGrams(KeptByGroup):
    """Matrices whose smaller Gram matrices have one size.

    A step keeps one float64 tensor `[p, 1 + g, d, d]`, in the order of `wanted`.
    """

    def spectra_of(self, kept, records, groups):
        """Return `(sigma, norm)` of some blocks `[b]` of what was kept, `[r, p, 1 + g, d, d]`."""
        r, p, g, d, _ = kept.shape
        if len(records) == r * g:  # all of them, in this order: a single record needs no copy
            return singular_values(kept.swapaxes(1, 2).reshape(-1, p, d, d))
        return singular_values(kept[records, :, groups])
