"""Gram matrices over the rows of each group: of the features, or of the smaller side.

Letters: `n` example, `g` group (the whole batch first), `r` record, `p` matrices of a method, `d`
features, `b` block (one group of one record), `i`, `o` rows and columns of a gradient.

`AᵀA` for an activation, `ΔᵀΔ` for an adjoint, and the smaller of `GᵀG` and `GGᵀ` for a gradient.
`AᵀA`, `ΔᵀΔ` and `G` are sums over examples. If there are more groups than examples, as with
permutations, it costs less to store one matrix per example and to sum them for each group than to
multiply the rows of each group. For a large activation or adjoint the smaller side may be chosen
group by group (`GramOfEach`).
"""

from dataclasses import dataclass

import numpy as np

from keras_spectral.matrices.base import array, transposed
from keras_spectral.spectra.host import EIGEN, parallel, singular_values
from keras_spectral.spectra.method import Solved, flattened, present, taken_from

OVERHEAD = 8e6
"""Fixed cost of a matrix, in multiplications of a float64 product. Because of it small matrices are
solved by Gram matrices of rows, which are batched."""

CHUNK_BYTES = 32_000_000
"""Approximate bytes of the sums of groups that are solved together, at least those of one group."""


def cost(sizes):
    """Return the cost of a matrix, in multiplications of a float64 product.

    Args:
        sizes: `Sizes`.
    """
    groups = len(sizes.examples)
    if not sizes.o:
        return OVERHEAD + sizes.products(sizes.i**2 / 2) + groups * EIGEN * sizes.i**3
    small, large = sorted((sizes.i, sizes.o))
    squares = groups * (small**2 * large + EIGEN * small**3)
    return OVERHEAD + sizes.products(sizes.i * sizes.o) + squares


def cost_of_each(sizes):
    """Return the cost of an activation or adjoint with the smaller side chosen per group.

    Args:
        sizes: `Sizes`.
    """
    sides = [(min(rows, sizes.i), max(rows, sizes.i)) for rows in sizes.rows]
    each = [OVERHEAD + small**2 * large / 2 + EIGEN * small**3 for small, large in sides]
    return sum(each)


@dataclass(frozen=True)
class FeatureGram:
    """Matrices whose Gram matrices of the smaller side have equal size `d`.

    The statistic is an array `[p, g, d, d]`, in the order of `wanted`.

    Attributes:
        wanted: As in `Method`.
        cost: As in `Method`.
    """

    wanted: tuple
    cost: float

    def reduce(self, weights, members, state):
        """Return the Gram matrices of features of one step."""
        del state
        work = [
            (weights[weight], quantity, g)
            for weight, quantity in self.wanted
            for g in _groups_to_multiply(weights[weight], quantity, members)
        ]
        products = iter(parallel(lambda each: _product(*each, members), work, self.cost))
        statistics = []
        for weight, quantity in self.wanted:
            groups = _groups_to_multiply(weights[weight], quantity, members)
            found = dict(zip(groups, products, strict=False))
            if 0 not in found:
                found[0] = sum(found.values())
            if quantity == "gradient":
                width = weights[weight].width(quantity)
                found = {g: _squared(part, width) for g, part in found.items()}
            none = np.zeros_like(found[0])
            statistics.append(np.stack([found.get(g, none) for g in range(members.n_groups)]))
        return np.stack(statistics)

    def solve(self, statistics, masks):
        """Find the spectra of the whole batch and of every group present."""
        records, groups = present(masks)
        sigma, norm = singular_values(statistics[records, :, groups])
        yield flattened(np.arange(len(self.wanted)), records, groups, sigma, norm)


@dataclass(frozen=True)
class FeatureGramByExample:
    """One matrix, stored as one part per example.

    The statistic is an array `[n, …, …]`: the Gram matrix of each example's activation or adjoint,
    or the gradient through each example.

    Attributes:
        wanted: As in `Method`, of one pair.
        cost: As in `Method`.
    """

    wanted: tuple
    cost: float

    def reduce(self, weights, members, state):
        """Return the parts of all examples of one step."""
        del state
        ((weight, quantity),) = self.wanted
        matrices = weights[weight]

        def part(n):
            if quantity == "gradient":
                return matrices.gradient_of_example(n)
            return array(matrices.of(quantity).gram(np.array([n])))

        return np.stack(parallel(part, range(members.n), self.cost))

    def solve(self, statistics, masks):
        """Find the spectra of the whole batch and of every group present."""
        is_gradient = self.wanted[0][1] == "gradient"
        size = max(1, CHUNK_BYTES // statistics[0, 0].nbytes)
        for record, (parts, mask) in enumerate(zip(statistics, masks, strict=True)):
            there = np.flatnonzero(mask.any(axis=0))
            for begin in range(0, len(there), size):
                groups = there[begin : begin + size]
                sums = _sums(parts, mask[:, groups])
                grams = _squared(sums, min(sums.shape[-2:])) if is_gradient else sums
                sigma, norm = singular_values(grams)
                zero = np.zeros_like(groups)
                yield Solved(zero, np.full_like(groups, record), groups, sigma, norm)


@dataclass(frozen=True)
class GramOfEach:
    """One activation or adjoint, with the smaller side chosen for each group.

    The statistic is an array `[g, 1 + d]`: Frobenius norm, then singular values.

    Attributes:
        wanted: As in `Method`, of one pair.
        cost: As in `Method`.
    """

    wanted: tuple
    cost: float

    def reduce(self, weights, members, state):
        """Return the singular values of one step."""
        del state
        ((weight, quantity),) = self.wanted
        matrix = weights[weight].of(quantity)

        def spectrum(g):
            examples, size = members.examples(g), members.sizes[g]
            if size * matrix.positions >= matrix.width:
                own = array(matrix.gram(examples))
            else:
                rows = matrix.rows(examples)
                own = array(rows @ transposed(rows))
            sigma, norm = singular_values(own)
            return np.concatenate([norm[None], sigma])

        order = sorted(np.flatnonzero(members.sizes), key=lambda g: -members.sizes[g])
        found = dict(zip(order, parallel(spectrum, order, self.cost), strict=True))
        result = np.zeros((members.n_groups, max(map(len, found.values()))))
        for g, values in found.items():
            result[g, : len(values)] = values
        return result

    def solve(self, statistics, masks):
        """Return the spectra of the whole batch and of every group present."""
        yield taken_from(statistics, masks)


def _groups_to_multiply(matrices, quantity, members):
    """Return the groups whose products are computed; the whole batch may be the sum of them."""
    there = np.flatnonzero(members.sizes)
    return there[1:] if members.divide and matrices.adds_up(quantity) else there


def _product(matrices, quantity, g, members):
    if quantity == "gradient":
        return matrices.gradient(members, g)
    return array(matrices.of(quantity).gram(members.examples(g)))


def _sums(parts, members):
    """Return sums `[g, …]` over the examples of each group; NaN where an example has NaN or Inf."""
    flat = parts.reshape(len(parts), -1)
    bad = ~np.isfinite(flat).all(axis=1)  # 0 times NaN would be NaN in groups without it
    flat = np.where(bad[:, None], 0.0, flat) if bad.any() else flat
    sums = (members.T.astype(float) @ flat).reshape(-1, *parts.shape[1:])
    sums[members[bad].any(axis=0)] = np.nan
    return sums


def _squared(gradients, width):
    """Return the Gram matrices `[…, width, width]` of gradients, whose zero rows may be missing."""
    turned = gradients.swapaxes(-1, -2)
    is_tall = gradients.shape[-1] == width
    return turned @ gradients if is_tall else gradients @ turned
