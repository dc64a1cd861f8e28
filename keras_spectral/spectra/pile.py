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

from keras_spectral.spectra.workers import spread

TOGETHER = 64
"""Records that are solved together: what is done once for all of them costs each little."""

TOGETHER_SPECTRA = 2048
"""Fewer records are solved together if there are many groups: about this many of each series."""

TOGETHER_BYTES = 1_000_000
"""Fewer records are solved together if they are large, condensed: about this many bytes."""

HANDED_OUT_BYTES = 500_000
"""Spectra are handed out in portions of about this many bytes: each makes a table, which costs."""

OF_A_NUMBER = 50
"""Multiplications that a number that was kept, or condensed, takes, about."""


class SolvedRecords(NamedTuple):
    """Singular values of the matrices of some records.

    Attributes:
        layout: `Layout` under which they were recorded.
        heads: Integer array `[r, …]`, the heads of the records.
        sizes: Integer array `[r, g]`, the examples of the whole batch and of each group.
        norm: float64 array `[r, series, g]` of Frobenius norms; NaN where there is no example, or
            NaN or Inf in the matrix.
        sigma: float64 array `[r, series, g, k]`, largest first, NaN where there are fewer.
        residual: float64 array `[r, series, g]` of the Frobenius norms of what was missed, 0 where
            nothing was; NaN like the norm.
    """

    layout: Any
    heads: Any
    sizes: Any
    norm: Any
    sigma: Any
    residual: Any


class Batch(NamedTuple):
    """Records of equal shape, one after the other, condensed.

    Attributes:
        heads: Integer array `[r, …]`, the heads of the records.
        mask: Boolean array `[r, n, g - 1]`.
        arrays: List of an array `[r, …]` for each stack of the layout.
    """

    heads: Any
    mask: Any
    arrays: Any

    @property
    def nbytes(self):
        """Bytes of the arrays."""
        return sum(array.nbytes for array in self.arrays)


class Pile:
    """Records that wait until there are enough of them, then spectra that do."""

    def __init__(self):
        self._waiting = []
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
        for alike in _alike(records):
            try:
                self._waiting.append(_condensed(alike, layout.stacks))
            except Exception as error:
                done.append(error)
                continue
            if _are_enough(self._waiting):
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
        batches, self._waiting = self._waiting, []
        try:
            self._solved += [_solved(batches, self._layout)] if batches else []
        except Exception as error:
            return [error]
        return []

    def _hand_out(self):
        solved, self._solved = self._solved, []
        # Records without a mask, from `train_on_batch`, have fewer groups than others.
        portions = itertools.groupby(solved, key=lambda part: part.sizes.shape[1])
        return [_joined(list(parts)) for _, parts in portions]


def _alike(records):
    """Yield lists of records of equal shape, which most batches give, in their order."""
    for _, same in itertools.groupby(records, key=lambda record: [part.shape for part in record]):
        same = list(same)
        size = _number_together(1 + same[0][1].shape[1])
        yield from (same[begin : begin + size] for begin in range(0, len(same), size))


_QUIETLY = np.errstate(invalid="ignore", over="ignore")  # NaN and Inf are recorded as NaN


@_QUIETLY
def _condensed(alike, stacks):
    heads, masks, *kept = zip(*alike, strict=True)
    masks = np.stack(masks).astype(bool)
    left = iter(kept)
    parts = [list(itertools.islice(left, stack.n_kept)) for stack in stacks]
    cost = OF_A_NUMBER * sum(array.size for arrays in kept for array in arrays)
    arrays = spread(
        lambda of: of[0].condensed(of[1], masks), list(zip(stacks, parts, strict=True)), cost
    )
    return Batch(np.stack(heads), masks, arrays)


def _number_together(n_groups):
    return max(1, min(TOGETHER, TOGETHER_SPECTRA // n_groups))


def _are_enough(batches):
    number = _number_together(1 + batches[-1].mask.shape[-1])
    many = sum(len(batch.heads) for batch in batches) >= number
    return many or sum(batch.nbytes for batch in batches) >= TOGETHER_BYTES


@_QUIETLY
def _solved(batches, layout):
    heads = np.concatenate([batch.heads for batch in batches])
    sizes = np.concatenate([_sizes(batch.mask) for batch in batches])
    kept, _ = layout.n_kept(layout.n_rows(heads, sizes))
    norm, residual = np.full((2, *kept.shape), np.nan)
    sigma = np.full((*kept.shape, kept.max()), np.nan)
    for members, mask, *arrays in _together(batches):
        of_stacks = spread(
            lambda of: list(of[0].solved(of[1], mask)),  # noqa: B023
            list(zip(layout.stacks, arrays, strict=True)),
            OF_A_NUMBER * sum(array.size for array in arrays),
        )
        for stack, of_stack in zip(layout.stacks, of_stacks, strict=True):
            series = np.array([layout.series.index(name) for name in stack.wanted])
            for solved in of_stack:
                at = members[solved.records], series[solved.wanted], solved.groups
                norm[at], residual[at] = solved.norm, solved.residual
                values = solved.sigma[:, : sigma.shape[-1]]
                sigma[..., : values.shape[-1]][at] = values
    sigma[np.arange(sigma.shape[-1]) >= kept[..., None]] = np.nan
    return SolvedRecords(layout, heads, sizes, norm, sigma, residual)


def _sizes(mask):
    return np.concatenate([np.full((len(mask), 1), mask.shape[1]), mask.sum(axis=1)], axis=1)


def _together(batches):
    """Yield `members, mask, *arrays` of batches of equal shape: more are solved together then."""
    alike, first = defaultdict(list), 0
    for batch in batches:
        members = np.arange(first, first + len(batch.heads))
        first += len(members)
        shapes = tuple(array.shape[1:] for array in (batch.mask, *batch.arrays))
        alike[shapes].append((members, batch.mask, *batch.arrays))
    for parts in alike.values():
        yield parts[0] if len(parts) == 1 else [np.concatenate(p) for p in zip(*parts, strict=True)]


def _joined(parts):
    longest = max(part.sigma.shape[-1] for part in parts)
    heads, sizes, norm, residual = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("heads", "sizes", "norm", "residual")
    )
    sigma = np.full((*norm.shape, longest), np.nan)
    begin = 0
    for part in parts:
        end = begin + len(part.sigma)
        sigma[begin:end, ..., : part.sigma.shape[-1]] = part.sigma
        begin = end
    return SolvedRecords(parts[0].layout, heads, sizes, norm, sigma, residual)
