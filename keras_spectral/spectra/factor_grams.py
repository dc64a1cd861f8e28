"""Gram matrices of features, made in the thread from factors kept as they are.

Letters: `n` example, `s` position, `w` feature, `g` group (the whole batch first), `r` record, `p`
matrices of a stack, `d` features, `c` group without the whole batch.

The same as `feature_grams`, made elsewhere: on a CPU NumPy's BLAS takes a fraction of the processor
time of TensorFlow's float64 products, of what is symmetric half, and leaves training its threads.
"""

from dataclasses import dataclass

import numpy as np

from keras_spectral.spectra.feature_grams import FeatureGrams


@dataclass(frozen=True)
class FactorGrams(FeatureGrams):
    """Matrices whose smaller Gram matrices have one size.

    A step keeps the factors themselves: tensors `[n, s, w]`, in the order of `factors`.

    Attributes:
        factors: Tuple of pairs `(weight index, "activation" or "adjoint")`.
    """

    factors: tuple

    @property
    def n_kept(self):
        """Number of tensors that a step keeps."""
        return len(self.factors)

    def condensed(self, kept, masks):
        """Return the Gram matrices of some steps.

        Args:
            kept: For each factor, a sequence of `r` arrays `[n, s, w]`.
            masks: Boolean array `[r, n, c]`.

        Returns:
            float64 array `[r, p, g, d, d]`.
        """
        return np.stack(
            [
                self._grams(dict(zip(self.factors, step, strict=True)), mask)
                for *step, mask in zip(*kept, masks, strict=True)
            ]
        )

    def _grams(self, factors, mask):
        wide = {name: np.asarray(factor, dtype=float) for name, factor in factors.items()}
        found = []
        for j, quantity in self.wanted:
            if quantity == "gradient":
                both = wide[j, "activation"], wide[j, "adjoint"]
                gradients = _of_all_and_groups(both, mask)
                turned = gradients.swapaxes(-1, -2)
                is_tall = gradients.shape[1] >= gradients.shape[2]
                found.append(turned @ gradients if is_tall else gradients @ turned)
            else:
                found.append(_of_all_and_groups((wide[j, quantity],) * 2, mask))
        return np.stack(found)


def _of_all_and_groups(both, mask):
    """Return products `[g, …, …]` of the rows of two arrays `[n, s, w]`, the first transposed."""
    groups = [_product(both, own) for own in mask.T]
    if groups and (mask.sum(axis=1) == 1).all():
        return np.stack([np.sum(groups, axis=0), *groups])
    return np.stack([_product(both, slice(None)), *groups])


def _product(both, own):
    left, right = both
    rows = left[own].reshape(-1, left.shape[-1])
    # The same array twice, of which BLAS computes half.
    others = rows if right is left else right[own].reshape(-1, right.shape[-1])
    return rows.T @ others
