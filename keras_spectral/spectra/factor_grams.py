"""Gram matrices of features, made in the thread from factors kept as they are.

Letters: `g` group (the whole batch first), `r` record, `p` matrices of a stack, `d` features, `c`
group without the whole batch. The same as `feature_grams`, made elsewhere.
"""

import itertools
from dataclasses import dataclass

import numpy as np

from keras_spectral.spectra.feature_grams import FeatureGrams
from keras_spectral.spectra.kept_factors import kept_steps, n_tensors
from keras_spectral.spectra.workers import spread


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
        blocks = [_blocks(mask) for mask in masks]
        matrices = list(itertools.product(zip(steps, blocks, strict=True), self.wanted))
        parts = [(step, name, own) for (step, block), name in matrices for own in block]
        products = iter(spread(_product, parts, sum(step.cost for step in steps)))
        each = [
            (quantity, list(itertools.islice(products, len(block))), masks.shape[2])
            for (_, block), (_, quantity) in matrices
        ]
        largest = max(np.size(product) for product in each[0][1])  # those of absent groups are 0
        found = spread(_grams, each, len(each) * largest**1.5)
        return np.stack(found).reshape(len(masks), len(self.wanted), *found[0].shape)


def _blocks(mask):
    """Return the groups `[c, n]`, and before them the whole batch, unless they add up to it."""
    divide = mask.shape[1] > 0 and (mask.sum(axis=1) == 1).all()
    return mask.T if divide else np.concatenate([np.ones((1, len(mask)), bool), mask.T])


def _product(part):
    step, name, own = part
    return step.product(*name, own) if own.any() else 0.0


def _grams(products_of_a_matrix):
    quantity, products, n_groups = products_of_a_matrix
    if len(products) == n_groups:
        products = [sum(products), *products]
    products = np.stack(np.broadcast_arrays(*products))
    if quantity != "gradient":
        return products
    turned = products.swapaxes(-1, -2)
    is_tall = products.shape[1] >= products.shape[2]
    return turned @ products if is_tall else products @ turned
