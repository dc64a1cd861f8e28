"""Factors as a step keeps them, and the products that the thread makes of them. NumPy alone.

Letters: `n` example, `s` position, `w` feature, `i` input feature, `o` output feature, `d` spatial
axes, `c` channel.

On a CPU NumPy's BLAS takes a fraction of the processor time of TensorFlow's float64 products, of
what is symmetric half, and leaves training its threads.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from keras_spectral.spectra.factors import FACTORS
from keras_spectral.spectra.workers import spread

CHUNK_NUMBERS = 500_000
"""Of rows, about so many numbers, or those of one example, are in float64 at a time."""


class KeptFactor(NamedTuple):
    """An activation or adjoint, of which a step keeps tensors.

    Attributes:
        weight: Index of the weight.
        name: `"activation"` or `"adjoint"`.
        n_tensors: How many are kept: one `[n, s, w]`, or the inputs `[n, *d, c]` of all calls of a
            convolution.
        unfolding: `Unfolding` of these inputs, or `None`.
    """

    weight: int
    name: str
    n_tensors: int = 1
    unfolding: Any = None


def n_tensors(factors):
    """Return how many tensors a step keeps.

    Args:
        factors: Tuple of `KeptFactor`.
    """
    return sum(factor.n_tensors for factor in factors)


def kept_steps(factors, kept):
    """Return what each of some steps kept.

    Args:
        factors: Tuple of `KeptFactor`.
        kept: For each tensor that a step keeps, a sequence of `r` arrays.

    Returns:
        List of `r` `KeptStep`.
    """
    return [KeptStep(factors, arrays) for arrays in zip(*kept, strict=True)]


class KeptStep:
    """What one step kept of some factors.

    Args:
        factors: Tuple of `KeptFactor`.
        arrays: Sequence of their arrays, those of the first factor first.
    """

    def __init__(self, factors, arrays):
        left = iter(arrays)
        self._parts = {
            (f.weight, f.name): _Part(f.unfolding, [next(left) for _ in range(f.n_tensors)])
            for f in factors
        }

    @property
    def cost(self):
        """Multiplications of the Gram matrices of features, about."""
        return sum(part.cost for part in self._parts.values())

    def product(self, j, quantity, own):
        """Return the Gram matrix of features, or the gradient, through some examples.

        Args:
            j: Index of the weight.
            quantity: `"activation"`, `"adjoint"` or `"gradient"`.
            own: Boolean array `[n]`, the examples, of which there is one at least.

        Returns:
            float64 array `[w, w]` or `[i, o]`.
        """
        if quantity != "gradient":
            return self._parts[j, quantity].gram(own)
        a, d = (self._parts[j, name] for name in FACTORS)
        if a.unfolding is not None:
            return a.unfolding.product(a.arrays, d.arrays[0], own)
        if d.unfolding is not None:
            return d.unfolding.product(d.arrays, a.arrays[0], own).T
        return _product_of_rows(a.arrays[0], d.arrays[0], own)

    def products_of_examples(self, j, quantity):
        """Return the same through each example by itself.

        Args:
            j: As in `product`.
            quantity: As in `product`.

        Returns:
            float64 array `[n, w, w]` or `[n, i, o]`.
        """
        names = FACTORS if quantity == "gradient" else (quantity, quantity)
        left, right = (self._parts[j, name] for name in names)
        if left.unfolding is None and right.unfolding is None:
            left, right = (np.asarray(part.arrays[0], dtype=float) for part in (left, right))
            return left.swapaxes(-1, -2) @ right
        each = np.eye(len(left.arrays[0]), dtype=bool)
        return np.stack(spread(lambda own: self.product(j, quantity, own), each, self.cost))


class _Part(NamedTuple):
    unfolding: Any
    arrays: Any

    @property
    def cost(self):
        offsets = 1 if self.unfolding is None else math.prod(self.unfolding.windows.kernel)
        return sum(offsets**2 * array.size * array.shape[-1] for array in self.arrays)

    def gram(self, own):
        if self.unfolding is not None:
            return self.unfolding.gram(self.arrays, own)
        return _product_of_rows(self.arrays[0], self.arrays[0], own)


def _product_of_rows(left, right, own):
    """Return the product of the rows of some examples of `[n, s, …]`, the first transposed."""
    members = np.flatnonzero(own)
    together = max(1, CHUNK_NUMBERS // max(1, left[0].size, right[0].size))
    total = 0.0
    for begin in range(0, len(members), together):
        chosen = members[begin : begin + together]
        rows = _rows(left, chosen)
        # The same array twice, of which BLAS computes half.
        total += rows.T @ (rows if right is left else _rows(right, chosen))
    return total


def _rows(array, chosen):
    return array[chosen].reshape(-1, array.shape[-1]).astype(float)
