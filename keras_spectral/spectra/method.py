"""A method: how the spectra of some matrices are found. One file per method implements it.

Letters: `n` example, `s` position, `i` input feature, `o` output feature, `g` group (the whole
batch first), `r` record, `m` matrix, `d` singular values.

A method works in two stages. The factors of one recorded step are reduced at once to a small
*statistic*, a float64 array, so that they need not be stored. The statistics of several records are
solved together later, which divides the fixed cost of each operation among them.
"""

import math
from typing import Any, NamedTuple, Protocol

import numpy as np


class Sizes(NamedTuple):
    """The sizes on which the cost of a method depends.

    Attributes:
        examples: Expected examples of the whole batch and of each group.
        s: Positions.
        i: Features of the activation or adjoint; of a gradient, its rows.
        o: Columns of a gradient, else 0.
        additive: Whether the matrix of a group is the sum of those of its examples.
    """

    examples: tuple
    s: int
    i: int
    o: int = 0
    additive: bool = True

    @property
    def rows(self):
        """Rows of the whole batch and of each group."""
        return [n * self.s for n in self.examples]

    @property
    def by_example(self):
        """Whether groups are sums of one matrix per example: groups outnumber examples."""
        return self.additive and len(self.examples) > self.examples[0]

    def products(self, entries):
        """Return the multiplications that the products of all groups take.

        Either each row is multiplied once and examples are summed, or each row is multiplied once
        for every group that it is in and once more for the whole batch, unless the groups partition
        the batch.

        Args:
            entries: Number of entries of a product.
        """
        n, *groups = self.examples
        if self.by_example:
            return n * (self.s + len(self.examples)) * entries
        times = sum(groups) + (0 if groups and math.isclose(sum(groups), n) else n)
        return times * self.s * entries


class Solved(NamedTuple):
    """Spectra of `m` matrices.

    Attributes:
        wanted: Integer array `[m]`, the place of each matrix in the `wanted` of its method.
        records: Integer array `[m]`, the record of each matrix.
        groups: Integer array `[m]`, its group.
        sigma: float64 array `[m, d]`, singular values, largest first; rounding errors beyond the
            rank bound of a matrix, NaN where a matrix holds NaN or Inf.
        norm: float64 array `[m]`, the Frobenius norms, NaN likewise.
        residual: float64 array `[m]`, the Frobenius norms of the parts outside a subspace, NaN
            likewise, or 0.
    """

    wanted: Any
    records: Any
    groups: Any
    sigma: Any
    norm: Any
    residual: Any = 0.0


class Method(Protocol):
    """How some spectra are found. Each file also has a function `cost`, by which `plan` chooses."""

    wanted: tuple
    """Pairs `(weight, quantity)`, each weight by its `(layer path, name)`: the spectra to find."""

    cost: float
    """Expected time, in multiplications of a float64 matrix product."""

    def reduce(self, weights, members, state):
        """Return the statistic of one recorded step, a float64 array.

        Args:
            weights: Dictionary from weights to their `WeightMatrices`.
            members: `Members` of the batch.
            state: Dictionary that lives as long as the recording, for values passed from step to
                step.
        """

    def solve(self, statistics, masks):
        """Find the spectra of the whole batch and of every group present.

        Args:
            statistics: float64 array `[r, …]`, the statistics of records that have equal shapes.
            masks: Boolean array `[r, n, g]`.

        Yields:
            `Solved`.
        """


def present(masks):
    """Return the groups with at least one example, as integer arrays `[b]` of records and groups.

    Args:
        masks: Boolean array `[r, n, g]`.
    """
    return np.nonzero(masks.any(axis=1))


def flattened(wanted, records, groups, sigma, norm, residual=0.0):
    """Return the `Solved` of several matrices of each of several blocks `b`.

    Args:
        wanted: Integer array `[p]`, the indices in `wanted` of the matrices of a block.
        records: Integer array `[b]`.
        groups: Integer array `[b]`.
        sigma: float64 array `[b, p, d]`.
        norm: float64 array `[b, p]`.
        residual: float64 array `[b, p]`, or 0.
    """
    places = np.empty((3, len(records), len(wanted)), dtype=int)
    places[0], places[1], places[2] = wanted, records[:, None], groups[:, None]
    residual = np.broadcast_to(residual, norm.shape).reshape(-1)
    sigma = sigma.reshape(-1, sigma.shape[-1])
    return Solved(*places.reshape(3, -1), sigma, norm.reshape(-1), residual)


def taken_from(statistics, masks):
    """Return the `Solved` of one matrix whose statistic holds its singular values.

    Args:
        statistics: float64 array `[r, g, 1 + d]`: Frobenius norm, then singular values.
        masks: Boolean array `[r, n, g]`.
    """
    records, groups = present(masks)
    found = statistics[records, groups][:, None]
    return flattened(np.zeros(1, int), records, groups, found[..., 1:], found[..., 0])
