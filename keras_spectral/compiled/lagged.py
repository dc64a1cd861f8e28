"""Gram matrices of the patches of a convolution from lagged products, which copy no patch.

Letters: `n` example, `c` channel, `k` kernel offset, `d` spatial axes, `q` place in the padded
input, `l` lag, `i` row, `j` column.

Of `AᵀA` the block `(k, k + l)` sums `y[q]ᵀ y[q + l]` over the places `q` that the offset `k` sees.
Of a stride of 1 these places are a box for each offset, and the boxes overlap but for their ends.
So places are cut into cells, along every axis, where a box begins or ends: within each the products
of a lag are summed once, and a block adds the cells of its box. Of 27 offsets along three axes, 63
lags take the place of 378 pairs. Terms are only added, never taken away again, so a small interior
between large ends loses no digits.

The products are summed by `compiled/lattice_products.c`: they are too thin for BLAS.

Source: the matrix is that of the covariance method of linear prediction (Makhoul, "Linear
prediction: a tutorial review", Proc. IEEE 63, 1975), whose blocks along a diagonal differ by their
ends alone.
"""

import itertools
import math
from ctypes import c_int64, c_void_p
from typing import Any, NamedTuple

import numpy as np

from keras_spectral.compiled import compiled

AXES = 4
"""Axes of a lattice: examples, and three spatial ones."""

LANES = 8
"""Numbers that are read at once, from each column on."""

LAGGED = 2.3
"""Cost of a multiplication of lagged products, in units of one of BLAS with patches, measured."""

OF_A_CELL = 43
"""Places that cost as much as a cell does besides, measured."""

OF_A_COPY = 20
"""Cost of a number of a patch that is copied, in the same unit, measured."""

_TYPES = (*[c_void_p, c_int64] * 2, c_int64, *[c_void_p] * 6, c_int64, c_void_p, c_int64, c_void_p)


def is_cheaper(windows, n, c):
    """Return whether lagged products may be used, and are cheaper than patches that are formed.

    Args:
        windows: `Windows`.
        n: Number of examples.
        c: Number of channels.
    """
    if set(windows.strides) != {1} or compiled("lattice_products", *_TYPES) is None:
        return False
    cells = lags = math.prod(2 * k - 1 for k in windows.kernel)
    rows, i = n * math.prod(windows.sizes), math.prod(windows.kernel) * c
    lagged = LAGGED * c * max(c * lags / 2, LANES) * (rows + OF_A_CELL * cells)
    return lagged < rows * i * (i / 2 + OF_A_COPY)


def lagged_gram(x, windows):
    """Return the Gram matrix of patches with strides of 1.

    Args:
        x: Array `[n, *d, c]`.
        windows: `Windows`.

    Returns:
        float64 array `[k c, k c]`.
    """
    kernel, dilation, c = np.array(windows.kernel), np.array(windows.dilation), x.shape[-1]
    # The lags of the first axis are never negative.
    reach = (kernel - 1) * dilation
    before = np.where(np.arange(len(kernel)) == 0, 0, reach)
    padded, memory = _padded(windows, x, before, reach)
    steps = _on_axes(padded)
    own = steps[-len(kernel) :]
    places, columns = _lags(kernel, dilation, own, c)
    first, *others = (
        _cells(size, k, d) for size, k, d in zip(windows.sizes, kernel, dilation, strict=True)
    )
    blocks = np.zeros((*kernel, c, columns.size * LANES))
    for begin, size, sees in zip(*first, strict=True):  # not at once, for their memory
        begins, sizes = (
            np.stack(np.meshgrid(one, *more, indexing="ij"), axis=-1).reshape(-1, len(kernel))
            for one, *more in zip([begin, size], *(cells[:2] for cells in others), strict=True)
        )
        points = _Points(memory, (begins + before) @ own, steps)
        sizes = [_sizes(len(x), size) for size in sizes]
        found = _lattice_products(points, sizes, np.arange(c), columns)
        for axis, (_, _, seen) in enumerate(others, start=1):
            found = seen.T @ found.reshape(math.prod(kernel[1:axis]), len(seen), -1)
        blocks[sees] += found.reshape(blocks.shape[1:])
    return _whole(blocks.reshape(math.prod(kernel), c, -1), places, kernel)


def _cells(size, k, dilation):
    """Return where the cells of an axis begin, their sizes, and which of `[…, k]` see them."""
    begins = np.arange(k) * dilation
    cuts = np.unique([begins, begins + size])
    first, end = cuts[:-1, None], cuts[1:, None]
    seen = (begins <= first) & (end <= begins + size)
    return first[:, 0], (end - first)[:, 0], seen


def _lags(kernel, dilation, steps, c):
    """Return at which of the products each lag begins, and the columns that they take.

    Lags that are negative, along the first axis where they are not 0, are left out.

    Returns:
        `(places, columns)`: dictionary from a tuple of lags to an index of the products, and an
        integer array `[j]`.
    """
    zero = (0,) * (len(kernel) - 1)
    leading = itertools.product(*(range(1 - k, k) for k in kernel[:-1]))
    places, columns = {}, []
    for lead in leading:
        if lead < zero:
            continue
        last = range(0 if lead == zero else 1 - kernel[-1], kernel[-1])
        # Neighbours lie side by side.
        runs = [last] if dilation[-1] == 1 else [range(lag, lag + 1) for lag in last]
        for run in runs:
            begin = int(np.array([*lead, run[0]]) * dilation @ steps)
            for number, lag in enumerate(run):
                places[*lead, lag] = len(columns) * LANES + number * c
            columns += range(begin, begin + len(run) * c, LANES)
    return places, np.array(columns)


def _whole(blocks, places, kernel):
    """Return `AᵀA [k c, k c]` from the blocks `[k, c, j]` of each offset and its lags."""
    c = blocks.shape[1]
    offsets = list(np.ndindex(*kernel))
    half = np.zeros((len(offsets), c, len(offsets), c))
    for k, own in enumerate(offsets):
        lags = np.array(offsets[k:]) - own
        at = np.array([places[tuple(lag)] for lag in lags.tolist()])
        half[k, :, k:] = blocks[k][:, at[:, None] + np.arange(c)]
        half[k, :, k] /= 2  # both halves have it
    half = half.reshape(len(offsets) * c, -1)
    return half + half.T


def _padded(windows, x, before, after):
    """Return `[n, *d, c]` with the zeros around it and margins, and its memory."""
    pads = windows.pads
    n, *sizes, c = x.shape
    first = [pad[0] + margin for pad, margin in zip(pads, before, strict=True)]
    full = [
        begin + size + pad[1] + margin
        for begin, size, pad, margin in zip(first, sizes, pads, after, strict=True)
    ]
    padded, memory = _room_for((n, *full, c))
    inside = (slice(begin, begin + size) for begin, size in zip(first, sizes, strict=True))
    padded[:, *inside] = x
    return padded, memory


def _on_axes(array):
    """Return the steps of an array `[n, *d, c]` along the axes of a lattice, `d` the last ones."""
    n, *steps, _ = (stride // array.itemsize for stride in array.strides)
    return np.array([n, *[0] * (AXES - 1 - len(steps)), *steps])


def _sizes(n, sizes):
    return np.array([n, *[1] * (AXES - 1 - len(sizes)), *sizes])


class _Points(NamedTuple):
    """The points of lattices in one of the arrays.

    Attributes:
        memory: float64 array of one axis.
        begins: Integer array `[l]`, the index of the first point of each.
        steps: Integer array `[AXES]`, the distance of neighbours along each axis.
    """

    memory: Any
    begins: Any
    steps: Any


def _room_for(shape):
    """Return zeros of a shape, and the memory they lie in, where columns may end beyond them.

    Returns:
        `(array, memory)`, float64, the latter of one axis.
    """
    size = int(np.prod(shape))
    memory = np.zeros(size + LANES)
    return memory[:size].reshape(shape), memory


def _lattice_products(points, sizes, rows, columns):
    """Sum over the points of each lattice the products of what lies around them.

    Args:
        points: `_Points`.
        sizes: Integer array `[l, AXES]`, the number of points along each axis.
        rows: Integer array `[i]`, where the left numbers lie, from a point on.
        columns: Integer array `[j]`, where `LANES` right numbers each begin, from a point on.

    Returns:
        float64 array `[l, i, j, LANES]`.

    Raises:
        IndexError: If anything that would be read lies outside of the memory.
    """
    found = np.zeros((len(sizes), len(rows), len(columns), LANES))
    memory = points.memory.ctypes.data, len(points.memory)
    begins, steps, sizes, rows, columns = (
        np.ascontiguousarray(part, dtype=np.int64)
        for part in (points.begins, points.steps, sizes, rows, columns)
    )
    pointers = (part.ctypes.data for part in (begins, begins, sizes, steps, steps, rows))
    outside = compiled("lattice_products", *_TYPES)(
        *memory,
        *memory,
        len(found),
        *pointers,
        len(rows),
        columns.ctypes.data,
        len(columns),
        found.ctypes.data,
    )
    if outside:
        raise IndexError("Lattices must lie within the padded input.")
    return found
