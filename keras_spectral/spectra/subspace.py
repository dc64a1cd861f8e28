"""The largest singular values alone, from a subspace that follows training.

Letters: `g` group (the whole batch first), `r` record, `b` columns of a basis, `p` matrices.

A step finds `Z = MᵀQ` for an orthonormal `Q` that nearly spans the leading left singular vectors of
`M` (`bases`), and keeps `ZᵀZ` and the exact Frobenius norm. The roots of the eigenvalues of `ZᵀZ`
are at most the singular values of `M`, and `M Mᵀ` is `QQᵀM` and the rest, so that

    sigma_k(QᵀM)² <= sigma_k(M)² <= sigma_k(QᵀM)² + ‖M‖_F² - ‖QᵀM‖_F².

Whatever `Q` is, these bounds hold: the error of every value is certified. What is left of the norm
is recorded as `residual_norm`.

Source: Halko, Martinsson and Tropp, "Finding structure with randomness", SIAM Review 53(2), 2011
(the iteration); Horn and Johnson, "Matrix Analysis", theorem 4.3.1 (the bounds: Weyl).
"""

from dataclasses import dataclass

import numpy as np

from keras_spectral.spectra.eigen import singular_values
from keras_spectral.spectra.kept_by_group import KeptByGroup

OVERSAMPLING = 8
"""Columns of a basis beyond the singular values that are wanted."""


@dataclass(frozen=True)
class Subspaces(KeptByGroup):
    """Matrices of which only the largest singular values are found, near enough.

    A step keeps one float64 tensor `[p, 1 + g, b² + 2]`: `ZᵀZ`, the square of the Frobenius norm,
    and the part of it that rounding may have misplaced.

    Attributes:
        columns: Columns `b` of the bases.
    """

    columns: int

    def spectra_of(self, kept, records, groups):
        """Return `(sigma, norm, residual)` of some blocks of what was kept, `[r, p, 1 + g, …]`."""
        found = kept[records, :, groups]
        energy, rounding = found[..., -2], found[..., -1]
        grams = found[..., :-2].reshape(*found.shape[:-1], self.columns, self.columns)
        sigma, captured = singular_values(grams)
        rest = np.maximum(energy - captured**2, 0.0) + rounding
        bad = ~np.isfinite(energy)
        sigma[bad] = np.nan
        norm = np.sqrt(np.where(bad, np.nan, energy))
        return sigma, norm, np.sqrt(np.where(bad, np.nan, rest))


def sigma_errors(sigma, residual_norm):
    """Return how far singular values may be from the exact ones: never more, often much less.

    Args:
        sigma: Array `[r, k]`, singular values as they were found.
        residual_norm: Array `[r]`, the Frobenius norm of what the subspace missed; NaN where
            singular values were found exactly.

    Returns:
        Array `[r, k]`: `sqrt(sigma² + residual_norm²) - sigma`, 0 where found exactly.
    """
    residual = np.nan_to_num(np.asarray(residual_norm, dtype=float))[:, None]
    return np.hypot(sigma, residual) - sigma
