"""Records of steps, piled up and solved together. NumPy alone: the graph has no part in it.

Letters: `g` group (the whole batch first), `k` rank of a singular value, `r` record.

A record is a list of arrays: a head (`step, epoch` and the shared positions of each weight), the
mask `[n, g - 1]`, and what each stack of the layout keeps. It is condensed as it comes: in place of
the latter, one small array per stack remains.
"""

import itertools
from collections import defaultdict
from typing import Any, NamedTuple

import numpy as np

TOGETHER = 64
"""Records that are solved together: what is done once for all of them costs each little."""

TOGETHER_SPECTRA = 2048
"""Fewer records are solved together if there are many groups: about this many of each series."""

TOGETHER_BYTES = 2_000_000
"""Fewer records are solved together if they are large, condensed: about this many bytes."""


class SolvedRecords(NamedTuple):
    """Singular values of the matrices of some records.

    Attributes:
        layout: `Layout` under which they were recorded.
        heads: Integer array `[r, …]`, the heads of the records.
        sizes: Integer array `[r, g]`, the examples of the whole batch and of each group.
        norm: float64 array `[r, series, g]` of Frobenius norms; NaN where there is no example, or
            NaN or Inf in the matrix.
        sigma: float64 array `[r, series, g, k]`, largest first, NaN where there are fewer.
    """

    layout: Any
    heads: Any
    sizes: Any
    norm: Any
    sigma: Any


class Pile:
    """Records that wait until there are enough of them."""

    def __init__(self):
        self._records = []
        self._layout = None

    def add(self, records, layout):
        """Pile up some records.

        Args:
            records: List of records, of NumPy arrays.
            layout: `Layout` under which they were recorded.

        Returns:
            List of `SolvedRecords`, of records piled up now or before, and of exceptions in place
            of those that cannot be solved.
        """
        done = [] if layout == self._layout else self.rest()
        self._layout = layout
        for record in records:
            try:
                self._records.append(_condensed(record, layout.stacks))
            except Exception as error:
                done.append(error)
                continue
            if len(self._records) >= _number_together(self._records[-1]):
                done += self.rest()
        return done

    def rest(self):
        """Solve all that waits.

        Returns:
            List as in `add`.
        """
        records, self._records = self._records, []
        try:
            return [_solved(records, self._layout)] if records else []
        except Exception as error:
            return [error]


def _condensed(record, stacks):
    head, mask, *kept = record
    left = iter(kept)
    arrays = [stack.condensed(list(itertools.islice(left, stack.n_kept))) for stack in stacks]
    return [head, mask.astype(bool), *arrays]


def _number_together(record):
    _, mask, *arrays = record
    n_bytes = sum(array.nbytes for array in arrays)
    return min(TOGETHER, TOGETHER_SPECTRA // (1 + mask.shape[1]), TOGETHER_BYTES // max(1, n_bytes))


def _solved(records, layout):
    heads = np.stack([head for head, *_ in records])
    sizes = np.stack([[len(mask), *mask.sum(axis=0)] for _, mask, *_ in records])
    kept, _ = layout.n_kept(layout.n_rows(heads, sizes))
    norm = np.full(kept.shape, np.nan)
    sigma = np.full((*kept.shape, kept.max()), np.nan)
    place = {name: number for number, name in enumerate(layout.series)}
    for members, stack, mask, arrays in _alike(records, layout.stacks):
        for solved in stack.solved(arrays, mask):
            block = members[solved.records], solved.groups
            values = solved.sigma[..., : sigma.shape[-1]]
            for p, name in enumerate(solved.names):
                at = block[0], place[name], block[1]
                norm[at] = solved.norm[:, p]
                sigma[..., : values.shape[-1]][at] = values[:, p]
    sigma[np.arange(sigma.shape[-1]) >= kept[..., None]] = np.nan
    return SolvedRecords(layout, heads, sizes, norm, sigma)


def _alike(records, stacks):
    # Records of equal shape, which most batches give, are solved together.
    alike = defaultdict(list)
    for r, record in enumerate(records):
        alike[tuple(part.shape for part in record)].append(r)
    for members in alike.values():
        _, masks, *arrays = zip(*(records[r] for r in members), strict=True)
        for stack, own in zip(stacks, arrays, strict=True):
            yield np.array(members), stack, np.stack(masks), own
