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

HANDED_OUT_BYTES = 500_000
"""Spectra are handed out in portions of about this many bytes: each makes a table, which costs."""


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
    """Records that wait until there are enough of them, then spectra that do."""

    def __init__(self):
        self._records = []
        self._layout = None
        self._solved = []

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
                done += self._solve()
        if sum(part.sigma.nbytes for part in self._solved) >= HANDED_OUT_BYTES:
            done += self._hand_out()
        return done

    def rest(self):
        """Solve all that waits.

        Returns:
            List as in `add`.
        """
        return self._solve() + self._hand_out()

    def _solve(self):
        records, self._records = self._records, []
        try:
            self._solved += [_solved(records, self._layout)] if records else []
        except Exception as error:
            return [error]
        return []

    def _hand_out(self):
        solved, self._solved = self._solved, []
        # Records without a mask, from `train_on_batch`, have fewer groups than others.
        portions = itertools.groupby(solved, key=lambda part: part.sizes.shape[1])
        return [_joined(list(parts)) for _, parts in portions]


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


def _joined(parts):
    longest = max(part.sigma.shape[-1] for part in parts)
    heads, sizes, norm = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("heads", "sizes", "norm")
    )
    sigma = np.full((*norm.shape, longest), np.nan)
    begin = 0
    for part in parts:
        end = begin + len(part.sigma)
        sigma[begin:end, ..., : part.sigma.shape[-1]] = part.sigma
        begin = end
    return SolvedRecords(parts[0].layout, heads, sizes, norm, sigma)
