"""Gram matrices of rows: one product per factor serves every group and all three quantities.

Letters: `n` example, `s` position, `g` group, `r` record, `p` matrices of a stack, `b` block (one
group of one record), `c` examples of a group, `d` rows of a block, `w` features of a thin factor.

With `K_A = A Aᵀ` and `K_Δ = Δ Δᵀ`, the squared singular values of `AᵀΔ` are the eigenvalues of
`Lᵀ K_Δ L` for any `L Lᵀ = K_A`, or of the same with the factors exchanged, and the Gram matrices of
a group are principal sub-blocks. A thin factor is its own root `L`, and small problems of size `w`
take the place of those of size `d`.

Source: Horn and Johnson, "Matrix Analysis", theorem 1.3.22 (`XY` and `YX` share eigenvalues).
"""

import itertools
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from keras_spectral.spectra.eigen import root, singular_values
from keras_spectral.spectra.solved import WHOLE, Solved, of_each_matrix
from keras_spectral.spectra.workers import cut, spread

CHUNK_BYTES = 32_000_000
"""Blocks that are solved together hold at most about this many bytes: permutations make many."""


@dataclass(frozen=True)
class RowGrams:
    """Factors of equal numbers of rows.

    A step keeps the factors themselves: tensors `[n, s, w]`, in the order of `factors`.

    Attributes:
        factors: Tuple of pairs `(weight index, "activation" or "adjoint")`.
        wanted: Tuple of pairs `(weight index, quantity)`: the spectra to find. A gradient needs
            both factors of its weight.
        positions: Number of positions `s`.
        thin: Tuple of the number of features of each factor that is kept as it is, 0 for those of
            which a Gram matrix is made.
    """

    factors: tuple
    wanted: tuple
    positions: int
    thin: tuple

    @property
    def n_kept(self):
        """Number of tensors that a step keeps."""
        return len(self.factors)

    def condensed(self, kept, masks):
        """Return the Gram matrices of some steps, which are small where this stack is chosen.

        Args:
            kept: For each factor, a sequence of `r` arrays `[n, s, w]`.
            masks: Of no use here.

        Returns:
            float64 array `[r, p, n s, max(n s, w)]`: the Gram matrices, and the thin factors
            themselves, each in as many columns as it needs.
        """
        del masks
        n, s, _ = kept[0][0].shape
        result = np.empty((len(kept[0]), len(kept), n * s, max(n * s, *self.thin)))

        def write(of):
            p, steps = of
            factor, width, own = kept[p][steps], self.thin[p], result[steps, p]
            rows = np.empty((len(factor), *factor[0].shape))
            for place, array in zip(rows, factor, strict=True):
                place[...] = array
            rows = rows.reshape(len(factor), n * s, rows.shape[-1])
            if width:
                own[..., :width] = rows
            else:
                np.matmul(rows, rows.swapaxes(-1, -2), out=own[..., : n * s])

        cost = sum(n * s * len(factor) * factor[0].size for factor in kept)
        each = list(itertools.product(range(len(kept)), cut(len(kept[0]), cost)))
        spread(write, each, cost)
        return result

    def solved(self, condensed, mask):
        """Find the spectra of the whole batch and of every group present.

        Args:
            condensed: float64 array `[r, p, n s, max(n s, w)]`.
            mask: Boolean array `[r, n, g]`.

        Returns:
            Iterator of `Solved`.
        """
        blocks = list(self._blocks(condensed, mask))
        cost = condensed.size * condensed.shape[2]
        return itertools.chain.from_iterable(spread(self._solved, blocks, cost))

    def _solved(self, blocks_and_groups):
        blocks, groups = blocks_and_groups
        found = []
        for names, gram in self._grams(blocks):
            wanted = np.array([self.wanted.index(name) for name in names])
            places = of_each_matrix(wanted, blocks.records, groups)
            sigma, norm = singular_values(gram)
            found.append(Solved(*places, sigma.reshape(-1, sigma.shape[-1]), norm.reshape(-1)))
        return found

    def _blocks(self, kept, mask):
        records = np.arange(len(kept))
        yield _Blocks(kept, records, None), np.full_like(records, WHOLE)
        counts = mask.sum(axis=1)
        for count in np.unique(counts[counts > 0]):
            records, groups = np.nonzero(counts == count)
            members = np.nonzero(mask[records, :, groups])[1].reshape(-1, count)
            rows = members[:, :, None] * self.positions + np.arange(self.positions)
            rows = rows.reshape(len(members), -1)
            for part in _chunks(len(rows), 8 * len(self.factors) * rows.shape[1] ** 2):
                yield _Blocks(kept, records[part], rows[part]), groups[part] + 1

    def _grams(self, blocks):
        # Wide ones have equal sizes and go together; thin ones are few, and small.
        factors = [name for name in self.wanted if name in self.factors]
        wide = [name for name in factors if not self._width(name)]
        if wide:
            yield wide, self._by_rows(blocks, wide)
        for name in factors:
            if self._width(name):
                thin = self._thin(blocks, name)
                yield [name], thin.swapaxes(-1, -2) @ thin
        gradients = [j for j, quantity in self.wanted if quantity == "gradient"]
        wide = [j for j in gradients if not any(self._width(name) for name in _both(j))]
        if wide:
            left = root(self._by_rows(blocks, [(j, "activation") for j in wide]))
            middle = self._by_rows(blocks, [(j, "adjoint") for j in wide])
            yield [(j, "gradient") for j in wide], left.swapaxes(-1, -2) @ middle @ left
        for j in gradients:
            if j not in wide:
                # The smallest first, the wide one, of width 0, last.
                one, other = sorted(_both(j), key=lambda name: self._width(name) or np.inf)
                left, middle = self._thin(blocks, one), self._by_rows(blocks, [other])
                yield [(j, "gradient")], left.swapaxes(-1, -2) @ middle @ left

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
    """Some blocks of what was kept.

    Attributes:
        kept: Array `[r, p, n s, …]`, as `RowGrams.condensed` made it, of `r` records.
        records: Integer array `[b]`, the record of each block.
        rows: Integer array `[b, d]`, the rows of each block, or `None` for all rows of every
            record.
    """

    kept: Any
    records: Any
    rows: Any

    def principal(self, places):
        """Return principal sub-blocks `[b, p, d, d]` of some Gram matrices."""
        if self.rows is None:
            return self.kept.take(places, axis=1)[..., : self.kept.shape[2]]
        # One flat index: NumPy takes three times as long by an index for each axis.
        _, p, n, width = self.kept.shape
        matrices = (self.records[:, None] * p + np.array(places)) * (n * width)
        inside = self.rows[:, :, None] * width + self.rows[:, None, :]
        return self.kept.reshape(-1).take(matrices[:, :, None, None] + inside[:, None])

    def columns(self, place, width):
        """Return the rows `[b, 1, d, w]` of a factor that was kept as it is."""
        if self.rows is None:
            return self.kept[:, [place], :, :width]
        return self.kept[self.records[:, None], place, self.rows, :width][:, None]


def _both(j):
    return (j, "activation"), (j, "adjoint")


def _chunks(n, bytes_each):
    size = max(1, CHUNK_BYTES // bytes_each)
    return [slice(first, first + size) for first in range(0, n, size)]
