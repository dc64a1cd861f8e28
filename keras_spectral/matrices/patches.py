"""The patches of a convolution (im2col), a matrix that is never materialised as a whole.

Letters: `n` example, `s` output position, `c` channel, `k` kernel offset, `b` block of channels,
`i` features of a patch, `o` output channel, `m` some examples, `d` spatial axes.

Row `(n, s)` is the patch of the input under the kernel at that position, `i = k c` numbers, so a
convolution is the product of this matrix and its kernel `[k c, o]`. A product with some columns is
a convolution with these columns as filters, and `AᵀΔ` is the filter gradient: both are operations
of TensorFlow, in the precision of training. `AᵀA` is summed in float64, from lagged products of the
input or from the patches of a few examples at a time.

Each block of channels of a grouped convolution is multiplied by columns of the kernel of its own.

Source: Chellapilla, Puri, Simard, "High performance convolutional neural networks for document
processing" (2006), for im2col.
"""

import functools
import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_spectral.compiled.lagged import is_cheaper, lagged_gram
from keras_spectral.matrices.base import Matrix, array, float64, taken

FORMED_NUMBERS = 1_000_000
"""Approximate size of the patches that are formed at a time on the host."""

PADDED_NUMBERS = 1_000_000
"""Approximate size of the input that is padded at a time, at least that of one example."""


class Patches(tf.experimental.ExtensionType, Matrix):
    """Patches of the inputs of all calls of a layer.

    Attributes:
        inputs: Tuple of tensors `[n, *d, c]`, one per call.
        kernel: Tuple with the size of the kernel along every spatial axis.
        strides, dilation: Tuples likewise.
        padding: `"valid"`, `"same"` or `"causal"`, as in Keras.
        n_blocks: Number of blocks of channels.
    """

    inputs: tuple[tf.Tensor, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: str
    n_blocks: int

    n = property(lambda self: int(self.inputs[0].shape[0]), doc="Number of examples.")

    width = property(lambda self: math.prod(self.kernel) * self._channels, doc="Features.")

    @property
    def positions(self):
        """Positions of all calls."""
        return sum(math.prod(own.sizes) for own in self.windows)

    @property
    def windows(self):
        """List of the `Windows` of each call."""
        how = self.kernel, self.strides, self.dilation, self.padding
        return [Windows(tuple(x.shape[1:-1]), *how) for x in self.inputs]

    def joined(self, others):
        """Return the patches of this call and of others, `Patches` of the same layer."""
        return self._of(x for patches in (self, *others) for x in patches.inputs)

    def rows(self, examples=None):
        """Return the patches of some examples in float64, blocks of channels first."""
        calls = [self._columns(*call, examples) for call in self._calls()]
        if not isinstance(calls[0], np.ndarray):
            columns = tf.reshape(tf.concat(calls, 2), [self.width, -1])
            return tf.transpose(self._by_block(columns))
        columns = calls[0] if len(calls) == 1 else np.concatenate(calls, axis=2)
        return self._by_block(columns.reshape(self.width, -1)).T

    def gram(self, examples=None):
        """Return the Gram matrix of the features over the rows of some examples."""
        if not isinstance(array(self.inputs[0]), np.ndarray):
            return super().gram(examples)
        examples = np.arange(self.n) if examples is None else examples
        total = np.zeros((self.width, self.width))
        for x, windows in self._calls():
            own = array(x)
            if is_cheaper(windows, len(examples), self._channels):
                size = max(1, PADDED_NUMBERS // own[0].size)
                for begin in range(0, len(examples), size):
                    total += lagged_gram(taken(own, examples[begin : begin + size]), windows)
            else:
                _add_gram(total, own, windows, examples)
        return self._by_block(self._by_block(total).T)

    def product(self, other, examples=None):
        """Return the filter gradient `AᵀΔ [i / b, o]` through some examples."""
        if self.n_blocks == 1:
            found = self._filter_gradient(other.tensor, examples)
            return float64(array(found))
        parts = self.chunks(examples, self.width + other.width)
        return sum(self._product_of_blocks(other, part) for part in parts)

    def matmul(self, columns):
        """Return the product with some columns: a convolution with these as filters."""
        filters = tf.reshape(columns, [*self.kernel, self._channels, columns.shape[-1]])
        found = [w.convolved(tf.cast(x, filters.dtype), filters) for x, w in self._calls()]
        flattened = [np.asarray(y).reshape(self.n, -1, columns.shape[-1]) for y in found]
        return np.concatenate(flattened, axis=1)

    def rmatmul(self, rows):
        """Return the product of this matrix, transposed, with some columns: filter gradients."""
        return np.asarray(self._filter_gradient(rows, None))

    def energies(self):
        """Return the sum of squares of each example's patches."""
        total = np.zeros(self.n)
        for x, windows in self._calls():
            for n, own in enumerate(np.asarray(array(x))):
                squares = np.square(own, dtype=float).sum(axis=-1)
                for times in windows.times_seen()[::-1]:
                    squares = squares @ times
                total[n] += squares
        return total

    def finite(self):
        """Return the patches of the inputs with NaN and Inf replaced by zeros."""
        return self._of(tf.where(tf.math.is_finite(x), x, tf.zeros_like(x)) for x in self.inputs)

    _channels = property(lambda self: int(self.inputs[0].shape[-1]))

    def _of(self, inputs):
        """Return the patches of other inputs."""
        how = self.kernel, self.strides, self.dilation, self.padding, self.n_blocks
        return Patches(tuple(inputs), *how)

    def _calls(self):
        return zip(self.inputs, self.windows, strict=True)

    def _filter_gradient(self, delta, examples):
        """Return the sum over all calls of `AᵀΔ [k c, o]`, for `Δ [n, s, o]`."""
        delta = taken(delta if isinstance(delta, np.ndarray) else array(delta), examples)
        dtype = tf.float64 if delta.dtype in (np.float64, tf.float64) else tf.float32
        o, begin, total = delta.shape[-1], 0, None
        for x, windows in self._calls():
            end = begin + math.prod(windows.sizes)
            own = tf.reshape(tf.cast(delta[:, begin:end], dtype), [-1, *windows.sizes, o])
            given = tf.cast(taken(array(x), examples), dtype)
            found = _filter_gradient_of(windows, self._channels, o, dtype)(given, own)
            total, begin = found if total is None else total + found, end
        return total

    def _columns(self, x, windows, examples):
        """Return the patches of one call `[k c, m, s]` in float64."""
        padded = windows.padded(float64(taken(array(x), examples)))
        offsets, s = list(np.ndindex(self.kernel)), math.prod(windows.sizes)
        if isinstance(padded, np.ndarray):
            channels = np.ascontiguousarray(np.moveaxis(padded, -1, 0))  # copies long runs
            columns = np.empty((len(offsets), *channels.shape[:2], *windows.sizes))
            for place, offset in zip(columns, offsets, strict=True):
                place[...] = channels[:, :, *windows.seen_by(offset)]
            return columns.reshape(self.width, -1, s)
        parts = [padded[:, *windows.seen_by(offset)] for offset in offsets]
        stacked = tf.reshape(tf.stack(parts), [len(offsets), -1, s, self._channels])
        return tf.reshape(tf.transpose(stacked, [0, 3, 1, 2]), [self.width, -1, s])

    def _by_block(self, columns):
        """Return features in the order block, offset, channel instead of offset, channel."""
        if self.n_blocks == 1:
            return columns
        order = np.arange(self.width).reshape(-1, self.n_blocks, self._channels // self.n_blocks)
        order = order.swapaxes(0, 1).ravel()
        return columns[order] if isinstance(columns, np.ndarray) else tf.gather(columns, order)

    def _product_of_blocks(self, other, examples):
        b = self.n_blocks
        a, d = np.asarray(self.rows(examples)), np.asarray(other.rows(examples))
        a, d = (x.reshape(len(x), b, -1).transpose(1, 0, 2) for x in (a, d))
        found = a.swapaxes(1, 2) @ d  # [b, i / b, o / b]
        return found.transpose(1, 0, 2).reshape(found.shape[1], -1)


class Windows(NamedTuple):
    """The windows of a convolution along every spatial axis, by Keras' conventions.

    Attributes:
        spatial: Tuple with the size of the input along every spatial axis.
        kernel, strides, dilation, padding: As in `Patches`.
    """

    spatial: tuple
    kernel: tuple
    strides: tuple
    dilation: tuple
    padding: str

    @property
    def reach(self):
        """Extent of a window along every spatial axis, dilation included."""
        return [(k - 1) * rate + 1 for k, rate in zip(self.kernel, self.dilation, strict=True)]

    @property
    def sizes(self):
        """Output positions along every spatial axis."""
        axes = zip(self.spatial, self.pads, self.reach, self.strides, strict=True)
        return [(size + sum(pad) - reach) // stride + 1 for size, pad, reach, stride in axes]

    @property
    def pads(self):
        """Zeros before and after the input, along every spatial axis."""
        if self.padding == "valid":
            return [(0, 0)] * len(self.kernel)
        if self.padding == "causal":
            return [(reach - 1, 0) for reach in self.reach]
        axes = zip(self.spatial, self.reach, self.strides, strict=True)
        missing = [max((-(-size // stride) - 1) * stride + r - size, 0) for size, r, stride in axes]
        return [(total // 2, total - total // 2) for total in missing]

    def padded(self, x):
        """Return the input with the zero padding of the convolution.

        Args:
            x: NumPy array or tensor `[n, *d, c]`.
        """
        around = [(0, 0), *self.pads, (0, 0)]
        return np.pad(x, around) if isinstance(x, np.ndarray) else tf.pad(x, around)

    def seen_by(self, offset):
        """Return the slices of the padded input that one kernel offset is multiplied with.

        Args:
            offset: Sequence of integers, one for each axis.
        """
        axes = zip(offset, self.dilation, self.strides, self.sizes, strict=True)
        return [slice(k * d, k * d + (size - 1) * step + 1, step) for k, d, step, size in axes]

    def times_seen(self):
        """Return how many windows cover each place of the input, as one array per axis."""
        found = []
        for axis, (before, _) in enumerate(self.pads):
            times = np.zeros(self.spatial[axis] + sum(self.pads[axis]))
            for k in range(self.kernel[axis]):
                offset = [k if other == axis else 0 for other in range(len(self.kernel))]
                times[self.seen_by(offset)[axis]] += 1
            found.append(times[before : before + self.spatial[axis]])
        return found

    def convolved(self, x, filters):
        """Return the convolution of an input.

        Args:
            x: Tensor `[n, *d, c]`.
            filters: Tensor `[*k, c, o]` of the same type.
        """
        return tf.nn.convolution(
            self.padded(x), filters, self.strides, "VALID", None, self.dilation
        )


def _add_gram(total, x, windows, examples):
    """Add the Gram matrix of the patches to `total`, forming a few patches at a time."""
    offsets = list(np.ndindex(windows.kernel))
    first, *rest = windows.sizes
    slabs = max(1, FORMED_NUMBERS // (len(total) * math.prod(rest)))
    memory = np.empty(len(total) * min(first, slabs) * math.prod(rest))
    for n in examples:
        padded = windows.padded(x[n : n + 1].astype(float))[0]
        channels = np.ascontiguousarray(np.moveaxis(padded, -1, 0))  # copies long runs
        for begin in range(0, first, slabs):
            size = min(slabs, first - begin)
            columns = memory[: len(total) * size * math.prod(rest)]
            columns = columns.reshape(len(offsets), len(channels), size, *rest)
            for place, offset in zip(columns, offsets, strict=True):
                along, *others = windows.seen_by(offset)
                stride = along.step
                along = slice(along.start + begin * stride, None, stride)
                np.copyto(place, channels[:, along, *others][:, :size])
            columns = columns.reshape(len(total), -1)
            total += columns @ columns.T


@functools.lru_cache(maxsize=256)
def _filter_gradient_of(windows, c, o, dtype):
    """Return a compiled function of `(x, Δ)`. TensorFlow prunes the forward convolution from it."""
    x = tf.TensorSpec([None, *windows.spatial, c], dtype)
    delta = tf.TensorSpec([None, *windows.sizes, o], dtype)

    @tf.function(input_signature=[x, delta], autograph=False)
    def filter_gradient(x, delta):
        filters = tf.zeros([*windows.kernel, c, o], dtype)
        with tf.GradientTape() as tape:
            tape.watch(filters)
            y = windows.convolved(tf.convert_to_tensor(x), filters)
        found = tape.gradient(y, filters, output_gradients=delta)
        return tf.reshape(found, [math.prod(windows.kernel) * c, o])

    return filter_gradient.get_concrete_function()
