"""Gram matrices of rows: one product per factor serves every group and all three quantities.

Letters: `n` example, `s` position, `g` group, `r` record, `p` factors or matrices of a method, `b`
block (one group of one record), `d` rows of a block, `w` features of a thin factor.

With `K_A = A Aᵀ` and `K_Δ = Δ Δᵀ`, the squared singular values of `AᵀΔ` are the eigenvalues of
`Lᵀ K_Δ L` for any `L Lᵀ = K_A`, or of the same with the factors exchanged, and the Gram matrices of
a group are principal submatrices. A thin factor, with few features, is its own root `L`: eigenvalue
problems then have size `w` instead of `d`.

Source: Horn and Johnson, "Matrix Analysis", theorem 1.3.22 (`XY` and `YX` share eigenvalues).
"""

import itertools
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from keras_spectral.matrices.base import array, transposed
from keras_spectral.spectra.host import EIGEN, parallel, root, singular_values
from keras_spectral.spectra.method import flattened

CHUNK_BYTES = 32_000_000
"""Approximate bytes of the blocks that are solved together: permutations make many blocks."""


def cost(sizes):
    """Return the cost of an activation or adjoint, in multiplications of a float64 product.

    Args:
        sizes: `Sizes`.
    """
    return sizes.rows[0] ** 2 * sizes.i / 2 + sum(EIGEN * rows**3 for rows in sizes.rows)


def cost_of_gradient(sizes):
    """Return the cost of a gradient whose factors are reduced to Gram matrices of rows anyway.

    Args:
        sizes: `Sizes`.
    """
    return sum((EIGEN + 2) * rows**3 for rows in sizes.rows)


def is_thin(sizes):
    """Return whether eigenvalue problems in the features are cheaper than in the rows.

    Args:
        sizes: `Sizes` of an activation or adjoint.
    """
    return len(sizes.examples) * sizes.i**3 < sum(rows**3 for rows in sizes.rows)


@dataclass(frozen=True)
class RowGram:
    """Factors with equal numbers of rows.

    The statistic is an array `[p, n s, max(n s, w)]`: the Gram matrices of the factors, and the
    thin factors themselves, each in as many columns as it needs.

    Attributes:
        wanted: As in `Method`. A gradient needs both factors of its weight.
        cost: As in `Method`.
        factors: Tuple of pairs `(weight, "activation" or "adjoint")`.
        positions: Number of positions `s`.
        thin: Tuple with the number of features of each factor that is stored itself, 0 for those
            whose Gram matrix is stored.
    """

    wanted: tuple
    cost: float
    factors: tuple
    positions: int
    thin: tuple

    def reduce(self, weights, members, state):
        """Return the Gram matrices of the rows of one step."""
        del state
        matrices = [weights[weight].of(name) for weight, name in self.factors]
        d = members.n * self.positions
        result = np.empty((len(matrices), d, max(d, *self.thin)))

        def write(place, matrix, width):
            rows = matrix.rows()
            if width:
                place[:, :width] = array(rows)
            elif isinstance(rows, np.ndarray):
                np.matmul(rows, rows.T, out=place[:, :d])
            else:
                place[:, :d] = array(rows @ transposed(rows))

        pieces = list(zip(result, matrices, self.thin, strict=True))
        parallel(lambda piece: write(*piece), pieces, sum(d * d * m.width for m in matrices))
        return result

    def solve(self, statistics, masks):
        """Find the spectra of the whole batch and of every group present."""
        blocks = sorted(self._blocks(statistics, masks), key=lambda own: -own.cost)
        found = parallel(self._solved, blocks, self.cost * len(statistics))
        return itertools.chain.from_iterable(found)

    def _solved(self, blocks):
        found = []
        for names, gram in self._grams(blocks):
            wanted = np.array([self.wanted.index(name) for name in names])
            found.append(flattened(wanted, blocks.records, blocks.groups, *singular_values(gram)))
        return found

    def _blocks(self, kept, masks):
        """Yield `_Blocks` of equal size."""
        counts = masks.sum(axis=1)
        n = masks.shape[1]
        for count in np.unique(counts[counts > 0]):
            records, groups = np.nonzero(counts == count)
            members = np.nonzero(masks[records, :, groups])[1].reshape(-1, count)
            rows = members[:, :, None] * self.positions + np.arange(self.positions)
            rows = rows.reshape(len(members), -1)
            size = max(1, CHUNK_BYTES // (8 * len(self.factors) * rows.shape[1] ** 2))
            if count == n and (groups == 0).all() and len(records) <= size:
                yield _Blocks(kept, records, groups, None)  # needs no copy
                continue
            for begin in range(0, len(rows), size):
                part = slice(begin, begin + size)
                yield _Blocks(kept, records[part], groups[part], rows[part])

    def _grams(self, blocks):
        # Wide factors have equal sizes and are solved together; thin ones are few and small.
        factors = [name for name in self.wanted if name in self.factors]
        wide = [name for name in factors if not self._width(name)]
        if wide:
            yield wide, self._by_rows(blocks, wide)
        for name in factors:
            if self._width(name):
                thin = self._thin(blocks, name)
                yield [name], thin.swapaxes(-1, -2) @ thin
        gradients = [weight for weight, quantity in self.wanted if quantity == "gradient"]
        wide = [w for w in gradients if not any(self._width(name) for name in _both(w))]
        if wide:
            left = root(self._by_rows(blocks, [(w, "activation") for w in wide]))
            middle = self._by_rows(blocks, [(w, "adjoint") for w in wide])
            yield [(w, "gradient") for w in wide], left.swapaxes(-1, -2) @ middle @ left
        for w in gradients:
            if w not in wide:
                # The smallest first, the wide one, of width 0, last.
                one, other = sorted(_both(w), key=lambda name: self._width(name) or np.inf)
                left, middle = self._thin(blocks, one), self._by_rows(blocks, [other])
                yield [(w, "gradient")], left.swapaxes(-1, -2) @ middle @ left

    def _width(self, name):
        return self.thin[self.factors.index(name)]

    def _thin(self, blocks, name):
        return blocks.columns(self.factors.index(name), self._width(name))

    def _by_rows(self, blocks, names):
        """Return the row-by-row Gram matrices `[b, p, d, d]` of some factors."""
        if self._width(names[0]):
            thin = self._thin(blocks, names[0])
            return thin @ thin.swapaxes(-1, -2)
        return blocks.principal([self.factors.index(name) for name in names])


class _Blocks(NamedTuple):
    """Blocks (a group of a record each) of the statistics of several records.

    Attributes:
        kept: Array `[r, p, n s, …]`, the statistics.
        records: Integer array `[b]`, the record of each block.
        groups: Integer array `[b]`, its group.
        rows: Integer array `[b, d]`, the rows of each block, or `None` for all rows of every
            record.
    """

    kept: Any
    records: Any
    groups: Any
    rows: Any

    @property
    def cost(self):
        """Cost of the eigenvalue problems, up to a constant factor."""
        rows = self.kept.shape[2] if self.rows is None else self.rows.shape[1]
        return len(self.records) * rows**3

    def principal(self, places):
        """Return principal submatrices `[b, p, d, d]` of some Gram matrices."""
        if self.rows is None:
            return self.kept.take(places, axis=1)[..., : self.kept.shape[2]]
        # One flat index: indices per axis take NumPy three times as long.
        _, p, n, width = self.kept.shape
        matrices = (self.records[:, None] * p + np.array(places)) * (n * width)
        inside = self.rows[:, :, None] * width + self.rows[:, None, :]
        return self.kept.reshape(-1).take(matrices[:, :, None, None] + inside[:, None])

    def columns(self, place, width):
        """Return the rows `[b, 1, d, w]` of a factor that is stored itself."""
        if self.rows is None:
            return self.kept[:, [place], :, :width]
        return self.kept[self.records[:, None], place, self.rows, :width][:, None]


def _both(weight):
    return (weight, "activation"), (weight, "adjoint")
