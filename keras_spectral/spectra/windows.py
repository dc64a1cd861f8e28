"""Where the windows of a convolution lie, along every spatial axis, as Keras has it.

Letters: `n` example, `t` place along the first spatial axis, `d` spatial axes, `e` those but the
first, `c` channel.
"""

import itertools
import math
from typing import NamedTuple

import tensorflow as tf


class Windows(NamedTuple):
    """Windows that slide over the spatial axes.

    Attributes:
        kernel: Tuple with the size of the kernel along every spatial axis.
        strides: Tuple likewise.
        dilation: Tuple likewise.
        padding: `"valid"`, `"same"` or `"causal"`.
    """

    kernel: tuple
    strides: tuple
    dilation: tuple
    padding: str

    @property
    def reach(self):
        """Places from the first that a window sees to the last, along every spatial axis."""
        return [(k - 1) * rate + 1 for k, rate in zip(self.kernel, self.dilation, strict=True)]

    def sizes(self, x):
        """Return the output positions along every spatial axis, static where they can be.

        Args:
            x: Tensor `[n, *d, c]`.
        """
        return [
            (size + sum(pad) - reach) // stride + 1
            for size, pad, reach, stride in zip(
                _spatial(x), self.pads(x), self.reach, self.strides, strict=True
            )
        ]

    def padded(self, x):
        """Return the input with the zeros that windows see around it.

        Args:
            x: Tensor `[n, *d, c]`.
        """
        return tf.pad(x, [(0, 0), *self.pads(x), (0, 0)])

    def unfolded(self, slabs, sizes):
        """Return what windows see, along all spatial axes but the first.

        Args:
            slabs: Tensor `[…, …, *e, c]`, padded.
            sizes: Output positions along every spatial axis.

        Returns:
            Tensor `[…, …, *e, k c]`: `e` output positions, `k` kernel offsets.
        """
        if len(self.kernel) == 1:
            return slabs
        offsets = itertools.product([0], *map(range, self.kernel[1:]))
        parts = [slabs[:, :, *self.seen_by(offset, sizes)[1:]] for offset in offsets]
        together = tf.stack(parts, axis=2)
        inner = list(range(3, 2 + len(self.kernel)))
        together = tf.transpose(together, [0, 1, *inner, 2, 2 + len(self.kernel)])
        width = math.prod(self.kernel[1:]) * slabs.shape[-1]
        return tf.reshape(together, tf.concat([tf.shape(together)[:-2], [width]], axis=0))

    def seen(self, slabs, size, k):
        """Return the slabs that an offset along the first axis sees.

        Args:
            slabs: Tensor `[t, …]`, from the first that a window sees.
            size: Output positions along the first axis.
            k: The offset.

        Returns:
            Tensor `[size, …]`.
        """
        begin, stride = k * self.dilation[0], self.strides[0]
        if stride == 1:
            return slabs[begin : begin + size]  # in the memory it has
        return slabs[begin : begin + (size - 1) * stride + 1 : stride]

    def seen_by(self, offset, sizes):
        """Return the slices of the padded input that an offset sees, along every spatial axis.

        Args:
            offset: Sequence of integers, one for each axis.
            sizes: Output positions along each.
        """
        begins = [at * rate for at, rate in zip(offset, self.dilation, strict=True)]
        return [
            slice(begin, begin + (size - 1) * stride + 1, stride)
            for begin, stride, size in zip(begins, self.strides, sizes, strict=True)
        ]

    def pads(self, x):
        """Return the zeros before and after, along every spatial axis.

        Args:
            x: Tensor or array `[n, *d, c]`.
        """
        if self.padding == "valid":
            return [(0, 0)] * len(self.kernel)
        if self.padding == "causal":
            return [(reach - 1, 0) for reach in self.reach]
        missing = [
            _at_least_0((-(-size // stride) - 1) * stride + reach - size)
            for size, reach, stride in zip(_spatial(x), self.reach, self.strides, strict=True)
        ]
        return [(total // 2, total - total // 2) for total in missing]


def _spatial(x):
    sizes = enumerate(x.shape[1:-1], start=1)
    return [tf.shape(x)[axis] if size is None else size for axis, size in sizes]


def _at_least_0(size):
    return max(size, 0) if isinstance(size, int) else tf.maximum(size, 0)
