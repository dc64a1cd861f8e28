"""Gram matrices of rows: one product per factor serves every group and all three quantities.

Letters: `n` example, `s` position, `g` group, `r` record, `p` matrices of a stack, `b` block (one
group of one record), `c` examples of a group, `d` rows of a block.

With `K_A = A Aᵀ` and `K_Δ = Δ Δᵀ`, the squared singular values of `AᵀΔ` are the eigenvalues of
`Lᵀ K_Δ L` for any `L Lᵀ = K_A`, and the Gram matrices of a group are principal sub-blocks.

Source: Horn and Johnson, "Matrix Analysis", theorem 1.3.22 (`XY` and `YX` share eigenvalues).
"""

from dataclasses import dataclass

import numpy as np

from keras_spectral.spectra.eigen import root, singular_values
from keras_spectral.spectra.solved import WHOLE, Solved

CHUNK_BYTES = 32_000_000
"""Blocks that are solved together hold at most about this many bytes: relabelings make many."""


@dataclass(frozen=True)
class RowGrams:
    """Factors of equal numbers of rows.

    A step keeps the factors themselves: tensors `[n, s, w]`, in the order of `factors`.

    Attributes:
        factors: Tuple of pairs `(weight index, "activation" or "adjoint")`, one per Gram matrix.
        wanted: Tuple of pairs `(weight index, quantity)`: the spectra to find. A gradient needs
            both factors of its weight.
        positions: Number of positions `s`.
    """

    factors: tuple
    wanted: tuple
    positions: int

    @property
    def n_kept(self):
        """Number of tensors that a step keeps."""
        return len(self.factors)

    def condensed(self, kept):
        """Return the Gram matrices of one step, which are small where this stack is chosen.

        Args:
            kept: List of arrays `[n, s, w]`, the factors.

        Returns:
            float64 array `[p, n s, n s]`.
        """
        n, s, _ = kept[0].shape
        grams = np.empty((len(kept), n * s, n * s))
        for rows, gram in zip(kept, grams, strict=True):
            flat = rows.reshape(n * s, -1).astype(float)
            np.matmul(flat, flat.T, out=gram)
        return grams

    def solved(self, condensed, mask):
        """Find the spectra of the whole batch and of every group present.

        Args:
            condensed: Sequence of `r` arrays `[p, n s, n s]`.
            mask: Boolean array `[r, n, g]`.

        Yields:
            `Solved`.
        """
        grams = np.stack(condensed)
        records = np.arange(len(grams))
        yield from self._solved(grams, records, np.full_like(records, WHOLE))
        counts = mask.sum(axis=1)
        for count in np.unique(counts[counts > 0]):
            records, groups = np.nonzero(counts == count)
            members = np.nonzero(mask[records, :, groups])[1].reshape(-1, count)
            rows = members[:, :, None] * self.positions + np.arange(self.positions)
            rows = rows.reshape(len(members), -1)
            for part in _chunks(len(rows), 8 * len(self.factors) * rows.shape[1] ** 2):
                blocks = _principal_blocks(grams, records[part], rows[part])
                yield from self._solved(blocks, records[part], groups[part] + 1)

    def _solved(self, blocks, records, groups):
        own = [name for name in self.wanted if name in self.factors]
        if own:
            gram = blocks[:, self._places(own)]
            yield Solved(tuple(own), records, groups, *singular_values(gram))
        of_gradients = [j for j, quantity in self.wanted if quantity == "gradient"]
        if of_gradients:
            left = root(blocks[:, self._places([(j, "activation") for j in of_gradients])])
            middle = blocks[:, self._places([(j, "adjoint") for j in of_gradients])]
            gram = left.swapaxes(-1, -2) @ middle @ left
            names = tuple((j, "gradient") for j in of_gradients)
            yield Solved(names, records, groups, *singular_values(gram))

    def _places(self, names):
        return [self.factors.index(name) for name in names]


def _principal_blocks(grams, records, rows):
    """Return the blocks `[b, p, d, d]` of some rows `[b, d]` of each of some records `[b]`."""
    matrices = np.arange(grams.shape[1])[None, :, None, None]
    records = records[:, None, None, None]
    return grams[records, matrices, rows[:, None, :, None], rows[:, None, None, :]]


def _chunks(n, bytes_each):
    size = max(1, CHUNK_BYTES // bytes_each)
    return [slice(first, first + size) for first in range(0, n, size)]
