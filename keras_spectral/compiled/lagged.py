"""Gram matrices of the patches of a convolution from lagged products, without forming patches.

Letters: `n` example, `c` channel, `k` kernel offset, `d` spatial axes, `q` place in the padded
input, `l` lag, `i` row, `j` column.

The block `(k, k + l)` of `AᵀA` sums `y[q]ᵀ y[q + l]` over the places `q` that are multiplied with
the offset `k`. For strides of 1 these places form a box for each offset, and the boxes differ at
their ends only. So every axis is cut into cells where a box begins or ends. Within each cell the
products of a lag are summed once, and a block is the sum of the cells of its box. A kernel of 3 x 3
x 3 has 63 lags, instead of 378 pairs of offsets. Terms are only added, never subtracted, so no
digits are lost to cancellation.

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
"""Consecutive numbers that are read at once from each column."""

LAGGED = 2.3
"""Cost of a multiplication of lagged products, in units of one by BLAS on patches (measured)."""

CELL_COST = 43
"""Fixed cost of a cell, in units of the cost of a place (measured)."""

COPY_COST = 20
"""Cost of copying a number of a patch, in units of a multiplication by BLAS (measured)."""

_TYPES = (*[c_void_p, c_int64] * 2, c_int64, *[c_void_p] * 6, c_int64, c_void_p, c_int64, c_void_p)


def is_cheaper(windows, n, c):
    """Return whether lagged products can be used and are cheaper than forming patches.

    Args:
        windows: `Windows`.
        n: Number of examples.
        c: Number of channels.
    """
    if set(windows.strides) != {1} or compiled("lattice_products", *_TYPES) is None:
        return False
    cells = lags = math.prod(2 * k - 1 for k in windows.kernel)
    rows, i = n * math.prod(windows.sizes), math.prod(windows.kernel) * c
    lagged = LAGGED * c * max(c * lags / 2, LANES) * (rows + CELL_COST * cells)
    return lagged < rows * i * (i / 2 + COPY_COST)


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
    """Return begins and sizes of the cells of an axis, and which offsets `[…, k]` cover each."""
    begins = np.arange(k) * dilation
    cuts = np.unique([begins, begins + size])
    first, end = cuts[:-1, None], cuts[1:, None]
    seen = (begins <= first) & (end <= begins + size)
    return first[:, 0], (end - first)[:, 0], seen


def _lags(kernel, dilation, steps, c):
    """Return the index of each lag among the products, and the columns to multiply.

    Of each lag and its negative only one is included, since the matrix is symmetric.

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
        # Consecutive lags are contiguous in memory.
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
        half[k, :, k] /= 2  # the diagonal is in both halves
    half = half.reshape(len(offsets) * c, -1)
    return half + half.T


def _padded(windows, x, before, after):
    """Return `[n, *d, c]` with zero padding and margins, and its memory."""
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
    """The points of several lattices in an array.

    Attributes:
        memory: float64 array of one axis.
        begins: Integer array `[l]`, the index of the first point of each.
        steps: Integer array `[AXES]`, the stride along each axis.
    """

    memory: Any
    begins: Any
    steps: Any


def _room_for(shape):
    """Return an array of zeros and its memory, which is longer so that columns may end beyond it.

    Returns:
        `(array, memory)`, float64, the latter of one axis.
    """
    size = int(np.prod(shape))
    memory = np.zeros(size + LANES)
    return memory[:size].reshape(shape), memory


def _lattice_products(points, sizes, rows, columns):
    """Sum, over the points of each lattice, products of pairs of numbers at given distances.

    Args:
        points: `_Points`.
        sizes: Integer array `[l, AXES]`, the number of points along each axis.
        rows: Integer array `[i]`, distances of the left numbers from a point.
        columns: Integer array `[j]`, distances of the first of `LANES` right numbers from a point.

    Returns:
        float64 array `[l, i, j, LANES]`.

    Raises:
        IndexError: If a number to be read is outside the memory.
    """
    found = np.zeros((len(sizes), len(rows), len(columns), LANES))
    memory = points.memory.ctypes.data, len(points.memory)
    begins, steps, sizes, rows, columns = (
        np.ascontiguousarray(part, dtype=np.int64)
        for part in (points.begins, points.steps, sizes, rows, columns)
    )
    pointers = (part.ctypes.data for part in (begins, begins, sizes, steps, steps, rows))
    add: Any = compiled("lattice_products", *_TYPES)  # there, or `is_cheaper` said no
    outside = add(
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
