"""Which side of a matrix is cheaper. Decides speed only: every choice gives the same spectra.

Letters: `n` examples of each block (the whole batch first, then the groups), `s` positions.
"""

import math

EIGEN = 5.0
"""Cost of an eigenvalue problem of size d, in units of d³ multiplications of a float64 product by
NumPy, which takes one core beside training 0.017 ns or so for each."""

IN_THE_THREAD = 1.0
"""Cost of a multiplication of products beside training, in that unit."""

IN_THE_GRAPH = 4.0
"""Cost of a multiplication of float64 products in the graph, which hold all cores, in that unit."""

SINGLE = 1.0
"""The same in float32."""

OF_FEATURES = 8e6
"""Cost of the operations that the side of the features needs for each matrix, in the same unit:
small matrices are better taken on the side of the rows, all of which go together."""

IN_A_SUBSPACE = 4e7
"""Cost of the operations that follow a subspace, in the same unit."""

TOGETHER = 10_000_000
"""Numbers that the product of a matrix with the bases of all groups may have, for its memory."""


def adds_examples(sizes):
    """Tell whether what groups need of the side of the features is added up from examples.

    Args:
        sizes: Expected examples of the whole batch and of each group.

    Returns:
        `True` if there are more groups than examples.
    """
    return len(sizes) > sizes[0]


def _products(sizes, s, entries):
    # Rows are multiplied once, and examples added up, or once for each group they are in, and once
    # more for the whole batch, unless groups divide it.
    n, *groups = sizes
    if adds_examples(sizes):
        return n * (s + len(sizes)) * entries
    times = sum(groups) + (0 if groups and math.isclose(sum(groups), n) else n)
    return times * s * entries


def prefers_rows(sizes, s, width, product):
    """Tell whether the row-by-row Gram matrix of `[n s, width]` is cheaper than the other one.

    On the side of the rows one product serves every group; on the side of the features each group
    needs its own.

    Args:
        sizes: Expected examples of the whole batch and of each group.
        s: Static number of positions, or `None` if unknown, which speaks for the features.
        width: Number of features.
        product: Cost of a multiplication of products on the side of the features.

    Returns:
        `True` if the side of the rows is expected to cost less.
    """
    if s is None:
        return False
    on_rows, on_features = _costs(sizes, s, width, product)
    return on_rows <= on_features


def _costs(sizes, s, width, product):
    """Return what the side of the rows costs, and that of the features."""
    rows = [n * s for n in sizes]
    on_rows = rows[0] ** 2 * width + sum(EIGEN * r**3 for r in rows)
    products = product * _products(sizes, s, width**2)
    return on_rows, OF_FEATURES + products + len(rows) * EIGEN * width**3


def prefers_rows_for_gradient(sizes, s, i, o, product):
    """Tell whether `Lᵀ K_Δ L` is cheaper than forming `AᵀΔ [i, o]` and its smaller Gram matrix.

    Args:
        sizes: Expected examples of the whole batch and of each group.
        s: Static number of positions.
        i: Input features.
        o: Output features.
        product: As in `prefers_rows`.

    Returns:
        `True` if the side of the rows is expected to cost less.
    """
    on_rows, on_features = _costs_of_gradient(sizes, s, i, o, product)
    return on_rows <= on_features


def _costs_of_gradient(sizes, s, i, o, product):
    small, large = min(i, o), max(i, o)
    rows = [n * s for n in sizes]
    on_rows = sum((EIGEN + 2) * r**3 for r in rows)
    products = product * _products(sizes, s, i * o)
    on_features = products + len(rows) * (product * small**2 * large + EIGEN * small**3)
    return on_rows, OF_FEATURES + on_features


def prefers_subspace(sizes, s, width, columns, product):
    """Tell whether following a subspace is cheaper than all singular values of `[n s, width]`.

    Args:
        sizes: Expected examples of the whole batch and of each group.
        s: Static number of positions, or `None` if unknown: then it is not.
        width: Number of features.
        columns: Columns of the subspace.
        product: As in `prefers_rows`.

    Returns:
        `True` if the subspace is expected to cost less.
    """
    if s is None or sizes[0] * s * len(sizes) * columns > TOGETHER:
        return False
    rows, together = sizes[0] * s, len(sizes) * columns
    products = 2 * SINGLE * rows * width * together
    small = IN_THE_GRAPH * (rows + width) * together * columns
    return IN_A_SUBSPACE + products + small < min(_costs(sizes, s, width, product))


def prefers_subspace_for_gradient(sizes, s, i, o, columns, product):
    """Tell the same of gradients `[i, o]`, which are formed for either.

    Args:
        sizes: As in `prefers_subspace`.
        s: Static number of positions of a product, or `None`.
        i: Input features.
        o: Output features.
        columns: As in `prefers_subspace`.
        product: As in `prefers_rows`.

    Returns:
        `True` if the subspace is expected to cost less.
    """
    iterated = len(sizes) * columns * (2 * SINGLE * i * o + IN_THE_GRAPH * (i + o) * columns)
    if s is None:
        small, large = min(i, o), max(i, o)
        squared = IN_THE_GRAPH * small**2 * large
        exact = OF_FEATURES + len(sizes) * (squared + EIGEN * small**3)
        return IN_A_SUBSPACE + iterated < exact
    formed = SINGLE * _products(sizes, s, i * o)
    return IN_A_SUBSPACE + formed + iterated < min(_costs_of_gradient(sizes, s, i, o, product))


def is_thin(sizes, s, width):
    """Tell whether eigenvalue problems of the size of the features are cheaper than of the rows.

    Args:
        sizes: Expected examples of the whole batch and of each group.
        s: Static number of positions.
        width: Number of features.

    Returns:
        `True` if those of the features are expected to cost less.
    """
    return len(sizes) * width**3 < sum((n * s) ** 3 for n in sizes)
