"""Products with the patches of a convolution, in NumPy: what the thread does with kept inputs.

Letters: `n` example, `t` place along the first spatial axis, `c` channel, `k` kernel offset, `b`
block of channels, `i` features of a patch, `o` output channel, `w` features of a slab, `r` rows of
a slab, `d` spatial axes.

As in `patches`, the input is unfolded along all spatial axes but the first: a slab of each place
along that holds `w = i / k_1` features of `r` rows, and a patch is `k_1` of them. Here features come
first, `[w, t, r]`: what an offset sees is copied in long stretches, and what a stretch of places
holds is one matrix `[w, t r]`, in the memory it has.

Source: Chellapilla, Puri, Simard, "High performance convolutional neural networks for document
processing" (2006), for the unfolding.
"""

import itertools
import math
from typing import NamedTuple

import numpy as np

from keras_spectral.spectra.autocorrelation import lagged, pays, whole
from keras_spectral.spectra.windows import Windows

CHUNK_NUMBERS = 500_000
"""Examples are unfolded together to about this many numbers, which caches hold, or one alone."""


class Unfolding(NamedTuple):
    """How inputs are unfolded.

    Attributes:
        windows: `Windows`.
        blocks: Number of blocks of channels.
    """

    windows: Windows
    blocks: int

    def slab_numbers(self, x):
        """Return how many numbers the slabs of one example are.

        Args:
            x: Tensor or array `[n, *d, c]`, all of `d` and `c` known.
        """
        first, *others = self.windows.sizes(x)
        *kernel, c = *self.windows.kernel[1:], x.shape[-1]
        places = (first - 1) * self.windows.strides[0] + self.windows.reach[0]
        return places * math.prod(others) * math.prod(kernel) * c

    def gram(self, inputs, own):
        """Return `AᵀA [i, i]` of some examples.

        Args:
            inputs: List of an array `[n, *d, c]` for each call of the layer.
            own: Boolean array `[n]`, the examples, of which there is one at least.
        """
        total = 0.0
        overlap = all(self._overlap(x) for x in inputs)
        for x in inputs:
            size = self.windows.sizes(x)[0]
            for _, slabs in self._chunks(x, own):
                total += self._lagged(slabs, size) if overlap else self._gram(slabs, size)
        if overlap:
            total = whole(total, self.windows.kernel[0])
        return self._by_block(total, inputs[0].shape[-1])

    def product(self, inputs, other, own):
        """Return `AᵀΔ [i / b, o]` of some examples.

        Args:
            inputs: As in `gram`.
            other: Array `[n, s, o]`.
            own: As in `gram`.
        """
        total, end = 0.0, 0
        for x in inputs:
            sizes = self.windows.sizes(x)
            begin, end = end, end + math.prod(sizes)
            for examples, slabs in self._chunks(x, own):
                rows = other[examples, begin:end]
                rows = rows.reshape(len(examples), sizes[0], -1, rows.shape[-1]).swapaxes(0, 1)
                rows = np.ascontiguousarray(rows, dtype=float).reshape(-1, rows.shape[-1])
                total += self._product(slabs, sizes[0], rows)
        return total

    def _chunks(self, x, own):
        """Yield some examples and their slabs `[w, t, r]`."""
        members = np.flatnonzero(own)
        together = max(1, CHUNK_NUMBERS // self.slab_numbers(x))
        for begin in range(0, len(members), together):
            examples = members[begin : begin + together]
            yield examples, self._slabs(x[examples])

    def _slabs(self, x):
        windows, padded, (_, *sizes) = self.windows, self._padded(x), self.windows.sizes(x)
        c, t, n, *_ = padded.shape
        if not sizes:
            return padded
        slabs = np.empty((*windows.kernel[1:], c, t, n, *sizes))
        for offset in itertools.product(*map(range, windows.kernel[1:])):
            slabs[offset] = padded[..., *windows.seen_across(offset, sizes)]
        return slabs.reshape(-1, t, n * math.prod(sizes))

    def _padded(self, x):
        """Return `[n, *d, c]` as `[c, t, n, …]`, in float64, with the zeros around it."""
        pads, (n, *sizes, c) = self.windows.pads(x), x.shape
        first, *others = (size + sum(pad) for size, pad in zip(sizes, pads, strict=True))
        padded = np.zeros((c, first, n, *others))
        first, *others = (
            slice(pad[0], pad[0] + size) for size, pad in zip(sizes, pads, strict=True)
        )
        padded[:, first, :, *others] = np.moveaxis(x, (-1, 1), (0, 1))
        return padded

    def _overlap(self, x):
        size, windows = self.windows.sizes(x)[0], self.windows
        return windows.strides[0] == 1 and pays(size, windows.kernel[0], windows.dilation[0])

    def _lagged(self, slabs, size):
        return lagged(slabs, size, self.windows.kernel[0], self.windows.dilation[0])

    def _gram(self, slabs, size):
        seen = np.concatenate(list(self._seen(slabs, size)))
        return seen @ seen.T

    def _seen(self, slabs, size):
        """Yield the matrices `[w, t r]` that each offset along the first axis sees."""
        w, _, r = slabs.shape
        flat = slabs.reshape(w, -1)
        for k in range(self.windows.kernel[0]):
            begin, stride = k * self.windows.dilation[0], self.windows.strides[0]
            if stride == 1:
                yield flat[:, begin * r : (begin + size) * r]
            else:
                stop = begin + (size - 1) * stride + 1
                yield slabs[:, begin:stop:stride].reshape(w, -1)

    def _product(self, slabs, size, rows):
        o = rows.shape[-1]
        seen = self._seen(slabs, size)
        if self.blocks == 1:
            return np.concatenate([part @ rows for part in seen])
        b, c = self.blocks, len(slabs) // math.prod(self.windows.kernel[1:])
        rows = rows.reshape(-1, b, o // b).swapaxes(0, 1)
        found = []
        for part in seen:
            part = part.reshape(-1, b, c // b, part.shape[-1]).swapaxes(0, 1)
            product = part.reshape(b, -1, part.shape[-1]) @ rows
            found.append(product.swapaxes(0, 1).reshape(-1, o))
        return np.concatenate(found)

    def _by_block(self, gram, c):
        """Return features in the order block, offset, channel instead of offset, channel."""
        if self.blocks == 1:
            return gram
        order = np.arange(len(gram)).reshape(-1, self.blocks, c // self.blocks)
        order = order.swapaxes(0, 1).ravel()
        return gram[np.ix_(order, order)]
