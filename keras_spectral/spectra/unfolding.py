"""Products with the patches of a convolution, which are not unfolded: the thread's part of them.

Letters: `n` example, `s` output position, `c` channel, `k` kernel offset, `b` block of channels,
`i` features of a patch, `o` output channel, `d` spatial axes, `q` place in the padded input, `l`
lag, `j` column.

A patch is what lies around a point of the padded input, so `AᵀΔ` sums products around the points
of a lattice (`lattice`).

So does `AᵀA`, whose block `(k, k + l)` sums `y[q]ᵀ y[q + l]` over the places `q` that the offset
`k` sees. Of a stride of 1 these places are a box for each offset, and the boxes overlap but for
their ends. So places are cut into cells, along every axis, where a box begins or ends: within each
the products of a lag are summed once, and a block adds the cells of its box. Of 27 offsets along
three axes, 63 lags take the place of 378 pairs. Terms are only added, never taken away again, so a
small interior between large ends loses no digits. Where boxes are small, and so cells many, patches
are formed, of a few examples at a time.

Source: the matrix is that of the covariance method of linear prediction (Makhoul, "Linear
prediction: a tutorial review", Proc. IEEE 63, 1975), whose blocks along a diagonal differ by their
ends alone.
"""

import itertools
import math
from typing import NamedTuple

import numpy as np

from keras_spectral.spectra.lattice import AXES, LANES, Points, lattice_products, room_for
from keras_spectral.spectra.windows import Windows

CHUNK_NUMBERS = 1_000_000
"""Examples are padded, or unfolded, together to about this many numbers, or one alone."""

LAGGED = 2.3
"""Cost of a multiplication of lagged products, in units of one of BLAS with patches, measured."""

OF_A_CELL = 43
"""Places that cost as much as a cell does besides, measured."""

OF_A_COPY = 20
"""Cost of a number of a patch that is copied, in the same unit, measured."""


class Unfolding(NamedTuple):
    """How inputs are unfolded.

    Attributes:
        windows: `Windows`.
        blocks: Number of blocks of channels.
    """

    windows: Windows
    blocks: int

    def gram(self, inputs, own):
        """Return `AᵀA [i, i]` of some examples.

        Args:
            inputs: List of an array `[n, *d, c]` for each call of the layer.
            own: Boolean array `[n]`, the examples, of which there is one at least.
        """
        members, total = np.flatnonzero(own), 0.0
        for x in inputs:
            numbers = math.prod(self.windows.kernel) * math.prod(self.windows.sizes(x))
            gram, numbers = _direct, numbers * x.shape[-1]
            if self._overlap(x, len(members)):
                gram, numbers = _lagged, x[0].size
            for examples in _chunks(members, numbers):
                total += gram(self.windows, x[examples])
        return self._by_block(total, inputs[0].shape[-1])

    def product(self, inputs, other, own):
        """Return `AᵀΔ [i / b, o]` of some examples.

        Args:
            inputs: As in `gram`.
            other: Array `[n, s, o]`.
            own: As in `gram`.
        """
        members, total, end = np.flatnonzero(own), 0.0, 0
        for x in inputs:
            begin, end = end, end + math.prod(self.windows.sizes(x))
            for examples in _chunks(members, x[0].size):
                total += self._product(x[examples], other[examples, begin:end])
        return total

    def _overlap(self, x, n):
        """Tell whether lagged products of so many examples may be used, and are cheaper."""
        if set(self.windows.strides) != {1}:
            return False
        sizes, c = self.windows.sizes(x), x.shape[-1]
        cells = lags = math.prod(2 * k - 1 for k in self.windows.kernel)
        rows, i = n * math.prod(sizes), math.prod(self.windows.kernel) * c
        lagged = LAGGED * c * max(c * lags / 2, LANES) * (rows + OF_A_CELL * cells)
        return lagged < rows * i * (i / 2 + OF_A_COPY)

    def _product(self, x, other):
        n, _, o = other.shape
        b, c = self.blocks, x.shape[-1]
        left, sizes, offsets = _seen(self.windows, x)
        values, memory = room_for((n, *self.windows.sizes(x), o))
        values.reshape(other.shape)[...] = other
        right = Points(memory, [0], _on_axes(values))
        found = np.empty((len(offsets), c // b, b, o // b))
        for block in range(b):
            rows = offsets[:, None] + block * (c // b) + np.arange(c // b)
            columns = block * (o // b) + np.arange(0, o // b, LANES)
            products = lattice_products(left, right, [sizes], rows.ravel(), columns)
            found[:, :, block] = products.reshape(len(offsets), c // b, -1)[..., : o // b]
        return found.reshape(-1, o)

    def _by_block(self, gram, c):
        """Return features in the order block, offset, channel instead of offset, channel."""
        if self.blocks == 1:
            return gram
        order = np.arange(len(gram)).reshape(-1, self.blocks, c // self.blocks)
        order = order.swapaxes(0, 1).ravel()
        return gram[np.ix_(order, order)]


def _chunks(members, numbers):
    together = max(1, CHUNK_NUMBERS // numbers)
    return [members[begin : begin + together] for begin in range(0, len(members), together)]


def _padded(windows, x, before, after):
    """Return `[n, *d, c]` with the zeros around it and margins, and its memory."""
    pads = windows.pads(x)
    n, *sizes, c = x.shape
    first = [pad[0] + margin for pad, margin in zip(pads, before, strict=True)]
    full = [
        begin + size + pad[1] + margin
        for begin, size, pad, margin in zip(first, sizes, pads, after, strict=True)
    ]
    padded, memory = room_for((n, *full, c))
    inside = (slice(begin, begin + size) for begin, size in zip(first, sizes, strict=True))
    padded[:, *inside] = x
    return padded, memory


def _on_axes(array):
    """Return the steps of an array `[n, *d, c]` along the axes of a lattice, `d` the last ones."""
    n, *steps, _ = (stride // array.itemsize for stride in array.strides)
    return np.array([n, *[0] * (AXES - 1 - len(steps)), *steps])


def _sizes(n, sizes):
    return np.array([n, *[1] * (AXES - 1 - len(sizes)), *sizes])


def _seen(windows, x):
    """Return the points of output positions, and what the kernel sees from there.

    Returns:
        `(points, sizes, offsets)`: `Points` in the padded input, their number along the axes of a
        lattice, and the place `[k]` of each offset from a point on.
    """
    none = [0] * len(windows.kernel)
    padded, memory = _padded(windows, x, none, none)
    steps = _on_axes(padded)
    own = steps[-len(windows.kernel) :]
    offsets = np.array(list(np.ndindex(windows.kernel)))
    places = offsets * windows.dilation @ own
    sizes = _sizes(len(x), windows.sizes(x))
    return Points(memory, [0], steps * _sizes(1, windows.strides)), sizes, places


def _direct(windows, x):
    """Return `AᵀA`, of patches that are formed."""
    none, sizes = [0] * len(windows.kernel), windows.sizes(x)
    padded, _ = _padded(windows, x, none, none)
    channels = np.ascontiguousarray(np.moveaxis(padded, -1, 0))  # copied in long stretches
    patches = np.empty((*windows.kernel, *channels.shape[:2], *sizes))
    for offset in np.ndindex(windows.kernel):
        patches[offset] = channels[:, :, *windows.seen_by(offset, sizes)]
    rows = patches.reshape(math.prod(windows.kernel) * len(channels), -1)
    return rows @ rows.T


def _lagged(windows, x):
    """Return `AᵀA` of windows with strides of 1, from lagged products."""
    kernel, dilation, c = np.array(windows.kernel), np.array(windows.dilation), x.shape[-1]
    # The lags of the first axis are never negative.
    reach = (kernel - 1) * dilation
    before = np.where(np.arange(len(kernel)) == 0, 0, reach)
    padded, memory = _padded(windows, x, before, reach)
    steps = _on_axes(padded)
    own = steps[-len(kernel) :]
    places, columns = _lags(kernel, dilation, own, c)
    first, *others = (
        _cells(size, k, d) for size, k, d in zip(windows.sizes(x), kernel, dilation, strict=True)
    )
    blocks = np.zeros((*kernel, c, columns.size * LANES))
    for begin, size, sees in zip(*first, strict=True):  # not at once, for their memory
        begins, sizes = (
            np.stack(np.meshgrid(one, *more, indexing="ij"), axis=-1).reshape(-1, len(kernel))
            for one, *more in zip([begin, size], *(cells[:2] for cells in others), strict=True)
        )
        points = Points(memory, (begins + before) @ own, steps)
        sizes = [_sizes(len(x), size) for size in sizes]
        found = lattice_products(points, points, sizes, np.arange(c), columns)
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
