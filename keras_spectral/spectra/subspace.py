"""The largest singular values only, by subspace iteration that continues from step to step.

Letters: `n` example, `s` position, `w` feature, `g` group (the whole batch first), `r` row of a
matrix, `b` columns of a basis, `p` matrix.

From one recorded step to the next a network changes little, so the bases `V` of the last recorded
step are good starting points, and one more iteration is enough:

    Y = M V,    Q = an orthonormal basis of the columns of Y,    Z = MᵀQ,    V = Z scaled.

The columns of all groups stand side by side, so that one product, or one convolution, serves all of
them; a group's `Y` has zeros in the rows of all other examples. Products are in the precision of
the data, operations on small matrices in float64. The singular values of `Z` are at most those of
`M`, and `MᵀM = Z Zᵀ + Mᵀ(I - QQᵀ)M`, so that

    sigma_k(Z)² <= sigma_k(M)² <= sigma_k(Z)² + ‖M‖_F² - ‖Z‖_F².

These bounds hold for any `Q`, so the error of every value is certified. The root of the difference
of the squared norms is recorded as `residual_norm`.

Source: Halko, Martinsson and Tropp, "Finding structure with randomness", SIAM Review 53(2), 2011
(the iteration); Horn and Johnson, "Matrix Analysis", theorem 4.3.1 (the bounds: Weyl).
"""

from dataclasses import dataclass

import numpy as np

from keras_spectral.spectra.host import singular_values
from keras_spectral.spectra.method import flattened, present

OVERSAMPLING = 8
"""Columns of a basis beyond the number of singular values that are recorded."""

COLD_PASSES = 4
"""Iterations at the first recorded step, which starts from random bases."""

DEPENDENT = 1e-10
"""Directions of `Y` with less than this fraction of the energy of the largest count as
dependent."""

ROUNDINGS = 10
"""Bound of the relative error of an energy, in machine epsilons of the data's precision."""

ROUNDINGS_OF_SMALL = 20
"""Further bound for the operations on small matrices, in machine epsilons of float64."""

SINGLE = 0.5
"""Cost of a multiplication of a product in float32, in units of one in float64."""

OVERHEAD = 4e7
"""Fixed cost of a matrix, in the same unit."""

MOST_PRODUCTS = 10_000_000
"""Largest size of the product of a matrix with the bases of all groups, to limit memory."""


def cost(sizes, columns):
    """Return the cost of a matrix, in multiplications of a float64 product.

    Args:
        sizes: `Sizes`.
        columns: Columns of the bases.

    Returns:
        Number; infinite where products would take too much memory.
    """
    together = len(sizes.examples) * columns
    if sizes.o:
        iterated = 2 * SINGLE * sizes.i * sizes.o + (sizes.i + sizes.o) * columns
        return OVERHEAD + sizes.products(sizes.i * sizes.o) + together * iterated
    rows = sizes.rows[0]
    if rows * together > MOST_PRODUCTS:
        return np.inf
    iterated = 2 * SINGLE * rows * sizes.i + (rows + sizes.i) * columns
    return OVERHEAD + together * iterated


@dataclass(frozen=True)
class Subspace:
    """Matrices of which only the largest singular values are found, approximately.

    The statistic is an array `[p, g, b² + 2]`: `ZᵀZ`, the squared Frobenius norm, and a bound of
    the rounding error of that square.

    Attributes:
        wanted: As in `Method`.
        cost: As in `Method`.
        columns: Columns `b` of the bases.
    """

    wanted: tuple
    cost: float
    columns: int

    def reduce(self, weights, members, state):
        """Return `ZᵀZ` of one step, after one more iteration of the bases in `state`."""
        operators = [_operator(weights[w], quantity, members) for w, quantity in self.wanted]
        key = self.wanted, members.n_groups, self.columns
        bases = state.get(key)
        passes = 1 if bases is not None else COLD_PASSES
        if bases is None:
            bases = [_random(m, members.n_groups, self.columns) for m in operators]
        for _ in range(passes):
            bases, grams = _iterated(operators, bases)
        state[key] = bases
        energies = np.stack([m.energies for m in operators])[..., None]
        epsilons = np.array([np.finfo(m.dtype).eps for m in operators])
        parts = ROUNDINGS * epsilons + ROUNDINGS_OF_SMALL * np.finfo(float).eps
        flat = grams.reshape(*grams.shape[:2], -1)
        return np.concatenate([flat, energies, parts[:, None, None] * energies], axis=-1)

    def solve(self, statistics, masks):
        """Find the largest singular values of the whole batch and of every group present."""
        records, groups = present(masks)
        found = statistics[records, :, groups]
        energy, rounding = found[..., -2], found[..., -1]
        grams = found[..., :-2].reshape(*found.shape[:-1], self.columns, self.columns)
        sigma, captured = singular_values(grams)
        rest = np.maximum(energy - captured**2, 0.0) + rounding
        bad = ~np.isfinite(energy)
        sigma[bad] = np.nan
        norm, missed = (np.sqrt(np.where(bad, np.nan, part)) for part in (energy, rest))
        yield flattened(np.arange(len(self.wanted)), records, groups, sigma, norm, missed)


def _iterated(operators, old):
    """Return the next bases of all matrices, and `ZᵀZ` `[p, g, b, b]`."""
    seen = [m.times(v) for m, v in zip(operators, old, strict=True)]
    lengths, turns = np.linalg.eigh(_finite(np.stack([_gram(y) for y in seen])))
    independent = lengths > DEPENDENT * lengths[..., -1:]
    scales = np.where(independent, 1 / np.sqrt(np.where(independent, lengths, 1.0)), 0.0)
    turns = turns * scales[..., None, :]
    new, grams, overlaps = [], [], []
    for p, (matrix, y) in enumerate(zip(operators, seen, strict=True)):
        q = (y.astype(float) @ turns[p]).astype(y.dtype)
        z = matrix.transposed_times(q)
        norms = np.linalg.norm(z.astype(float), axis=1, keepdims=True).astype(z.dtype)
        alive = norms > 0.0  # nor NaN
        fresh = _random(matrix, 1, z.shape[-1])  # replaces columns that are zero
        new.append(np.where(alive, z / np.where(alive, norms, 1.0), fresh))
        grams.append(_gram(z))
        overlaps.append(_gram(q))
    return new, _of_orthonormal(np.stack(grams), np.stack(overlaps))


def _of_orthonormal(grams, overlaps):
    """Return the `ZᵀZ` that belongs to `Q (QᵀQ)^(-1/2)`, whose columns are orthonormal.

    Columns of `Q` that come from nearly dependent columns of `Y` have lost digits and are not.
    """
    lengths, turns = np.linalg.eigh(_finite(overlaps))
    there = lengths > 0.5  # 1 up to rounding; 0 where a column was dependent
    scales = np.where(there, 1 / np.sqrt(np.where(there, lengths, 1.0)), 0.0)
    mend = (turns * scales[..., None, :]) @ turns.swapaxes(-1, -2)
    return mend @ grams @ mend


def _operator(matrices, quantity, members):
    dtype = np.float64 if matrices.is_float64 else np.float32
    if quantity == "gradient":
        return _Formed(matrices, members, dtype)
    return _OfMembers(matrices.of(quantity), members, dtype)


class _Formed:
    """Gradients `[g, i, o]`, formed explicitly."""

    def __init__(self, matrices, members, dtype):
        shape, self.dtype = matrices.gradient_shape, dtype
        self.width = shape[1]
        found = {g: matrices.gradient(members, g) for g in np.flatnonzero(members.sizes)}
        rows = max(len(part) for part in found.values())  # zero rows may be left out
        gradients = np.zeros((members.n_groups, rows, self.width))
        for g, part in found.items():
            gradients[g, : len(part)] = part
        self.energies = np.square(gradients).sum(axis=(1, 2))
        self._gradients = np.where(np.isfinite(gradients), gradients, 0.0).astype(dtype)

    def times(self, v):
        return self._gradients @ v

    def transposed_times(self, q):
        return self._gradients.swapaxes(1, 2) @ q


class _OfMembers:
    """A matrix restricted to the rows of each group: the other rows are zero."""

    def __init__(self, matrix, members, dtype):
        self.width, self.dtype = matrix.width, dtype
        energies = matrix.energies()
        # Not a product with the mask: 0 times NaN is NaN.
        self.energies = np.where(members.mask, energies[:, None], 0.0).sum(axis=0)
        self._matrix = matrix if np.isfinite(energies).all() else matrix.finite()
        self._mask = members.mask.astype(dtype)

    def times(self, v):
        g, w, b = v.shape
        y = self._matrix.matmul(v.transpose(1, 0, 2).reshape(w, g * b))
        own = y.reshape(*y.shape[:2], g, b) * self._mask[:, None, :, None]
        return own.reshape(-1, g, b).transpose(1, 0, 2)

    def transposed_times(self, q):
        g, _, b = q.shape
        side_by_side = q.transpose(1, 0, 2).reshape(len(self._mask), -1, g * b)
        z = self._matrix.rmatmul(side_by_side)
        return z.reshape(self.width, g, b).transpose(1, 0, 2)


def _finite(grams):
    # LAPACK raises on values that overflowed.
    return np.where(np.isfinite(grams), grams, 0.0)


def _gram(x):
    x = x.astype(float)
    return x.swapaxes(-1, -2) @ x


def _random(matrix, n_groups, b):
    shape = n_groups, matrix.width, b
    return np.random.default_rng(0).standard_normal(shape).astype(matrix.dtype)
