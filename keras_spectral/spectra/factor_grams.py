"""Gram matrices of features, made in the thread from factors kept as they are.

Letters: `g` group (the whole batch first), `r` record, `p` matrices of a stack, `d` features, `c`
group without the whole batch. The same as `feature_grams`, made elsewhere.
"""

from dataclasses import dataclass

import numpy as np

from keras_spectral.spectra.feature_grams import FeatureGrams
from keras_spectral.spectra.kept_factors import kept_steps, n_tensors


@dataclass(frozen=True)
class FactorGrams(FeatureGrams):
    """Matrices whose smaller Gram matrices have one size.

    A step keeps the factors themselves, in the order of `factors`.

    Attributes:
        factors: Tuple of `KeptFactor`.
    """

    factors: tuple

    @property
    def n_kept(self):
        """Number of tensors that a step keeps."""
        return n_tensors(self.factors)

    def condensed(self, kept, masks):
        """Return the Gram matrices of some steps.

        Args:
            kept: For each tensor that a step keeps, a sequence of `r` arrays.
            masks: Boolean array `[r, n, c]`.

        Returns:
            float64 array `[r, p, g, d, d]`.
        """
        steps = kept_steps(self.factors, kept)
        return np.stack([self._grams(step, mask) for step, mask in zip(steps, masks, strict=True)])

    def _grams(self, step, mask):
        found = []
        for j, quantity in self.wanted:
            products = _of_all_and_groups(lambda own: step.product(j, quantity, own), mask)  # noqa: B023
            if quantity == "gradient":
                turned = products.swapaxes(-1, -2)
                is_tall = products.shape[1] >= products.shape[2]
                products = turned @ products if is_tall else products @ turned
            found.append(products)
        return np.stack(found)


def _of_all_and_groups(part, mask):
    """Return the parts `[g, …, …]` of the whole batch and of every group; 0 if it has none."""
    groups = [part(own) if own.any() else 0.0 for own in mask.T]
    divide = mask.shape[1] > 0 and (mask.sum(axis=1) == 1).all()
    whole = sum(groups) if divide else part(np.ones(len(mask), bool))
    return np.stack(np.broadcast_arrays(whole, *groups))
