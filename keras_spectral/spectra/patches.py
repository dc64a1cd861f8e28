"""The unfolded patches of a convolution, as a matrix that is never formed as a whole.

Letters: `n` example, `s` output position, `c` channel, `k` kernel offset, `b` block of channels,
`i` features of a patch, `o` output channel, `g` group, `d` spatial axes.

Row `(n, s)` holds what the kernel sees at that position, `i = k c` numbers, so a convolution is the
product of this matrix and its kernel `[k c, o]`. With several blocks (a grouped convolution) each
block of features meets its own columns of the kernel alone.

Of the input only *slabs*, its slices along the first spatial axis, are unfolded: along all other
axes, `w = i / k_1` numbers for each place. What a kernel sees along the first axis are `k_1` of
them, so a product with `A` is one for each offset.

Products run over a few slabs at a time. Besides the padded input they hold a few copies of
`CHUNK_BYTES` of unfolded slabs, or of those that one position sees, if that is more.

Source: Chellapilla, Puri, Simard, "High performance convolutional neural networks for document
processing" (2006), for the unfolding.
"""

import math

import numpy as np
import tensorflow as tf

from keras_spectral.spectra.unfolding import Unfolding
from keras_spectral.spectra.windows import Windows

CHUNK_BYTES = 8_000_000
"""As fast as larger ones on a CPU, whose caches it fits better."""


class Patches(tf.experimental.ExtensionType):
    """Patches of the inputs of all calls of a layer.

    Attributes:
        inputs: Tuple of tensors `[n, *d, c]`, one per call.
        kernel: Tuple with the size of the kernel along every spatial axis.
        strides: Tuple likewise.
        dilation: Tuple likewise.
        padding: `"valid"`, `"same"` or `"causal"`, as in Keras.
        blocks: Number of blocks of channels.
    """

    inputs: tuple[tf.Tensor, ...]
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: str
    blocks: int

    @property
    def dtype(self):
        """The type of the numbers."""
        return self.inputs[0].dtype

    @property
    def width(self):
        """Features of a patch."""
        return math.prod(self.kernel) * self._channels

    @property
    def positions(self):
        """Positions of all calls: an integer if it is static, else a scalar tensor."""
        return sum(math.prod(self.windows.sizes(x)) for x in self.inputs)

    def gradient_shape(self, o):
        """Return the shape of `AᵀΔ`, as the weight has it.

        Args:
            o: Features of the other factor.
        """
        return self.width // self.blocks, o

    def joined(self, others):
        """Return the patches of this call and of others of the same layer.

        Args:
            others: List of `Patches`.
        """
        inputs = tuple(x for patches in (self, *others) for x in patches.inputs)
        return Patches(inputs, self.kernel, self.strides, self.dilation, self.padding, self.blocks)

    def rows(self):
        """Return all patches, formed: a tensor `[n, s, i]`."""
        return tf.concat([self._rows_of(x) for x in self.inputs], axis=1)

    def grams(self, rows):
        """Return `AᵀA [g, i, i]` of each group, in float64.

        Args:
            rows: `GroupRows`, or `None` for the whole batch (`g = 1`).
        """
        total = self._summed(rows, (self.width, self.width), self._gram)
        return self._by_block(self._by_block(total, axis=1), axis=2)

    def products(self, other, rows):
        """Return `AᵀΔ [g, i / b, o]` of each group, in float64: filter gradients.

        Args:
            other: Tensor `[n, s, o]`.
            rows: `GroupRows`, or `None` for the whole batch (`g = 1`).
        """
        counts = [math.prod(self.windows.sizes(x)) for x in self.inputs]
        others = tf.split(other, counts, axis=1) if len(counts) > 1 else [other]
        i, o = self.gradient_shape(other.shape[-1])
        shape = (self.kernel[0], i // self.kernel[0], o)
        return tf.reshape(self._summed(rows, shape, self._product, others), [-1, i, o])

    @property
    def windows(self):
        """Where the kernel looks."""
        return Windows(self.kernel, self.strides, self.dilation, self.padding)

    @property
    def unfolding(self):
        """How the thread unfolds the inputs."""
        return Unfolding(self.windows, self.blocks)

    @property
    def _channels(self):
        return int(self.inputs[0].shape[-1])

    @property
    def _slab_width(self):
        return self.width // self.kernel[0]

    def _rows_of(self, x):
        windows = self.windows
        sizes, n = windows.sizes(x), tf.shape(x)[0]
        slabs = windows.unfolded(windows.padded(x), sizes)
        places = tf.range(sizes[0])[:, None] * self.strides[0]
        places += tf.range(self.kernel[0]) * self.dilation[0]
        seen = tf.gather(slabs, places, axis=1)  # [n, s_1, k_1, …, i / k_1]
        inner = list(range(3, 2 + len(self.kernel)))
        seen = tf.transpose(seen, [0, 1, *inner, 2, 2 + len(self.kernel)])
        found = tf.reshape(seen, tf.stack([n, math.prod(sizes), self.width]))
        return self._by_block(found, axis=2)

    def _by_block(self, tensor, axis):
        """Return features in the order block, offset, channel instead of offset, channel."""
        if self.blocks == 1:
            return tensor
        order = np.arange(self.width).reshape(-1, self.blocks, self._channels // self.blocks)
        return tf.gather(tensor, order.swapaxes(0, 1).ravel(), axis=axis)

    def _gram(self, slabs, size):
        parts = [self.windows.seen(slabs, size, k) for k in range(self.kernel[0])]
        seen = tf.reshape(tf.concat(parts, axis=-1), [-1, self.width])
        return tf.matmul(seen, seen, transpose_a=True)

    def _product(self, slabs, size, other):
        """Return `[k_1, i / (k_1 b), o]`: what each offset along the first axis sees, times Δ."""
        k, w, o = self.kernel[0], self._slab_width, other.shape[-1]
        parts = [self.windows.seen(slabs, size, at) for at in range(k)]
        if self.blocks == 1:
            d = tf.reshape(other, [-1, o])
            return tf.stack([tf.matmul(tf.reshape(a, [-1, w]), d, transpose_a=True) for a in parts])
        b, c = self.blocks, self._channels
        d = tf.reshape(other, [-1, b, o // b])
        parts = [tf.reshape(a, [-1, w // c, b, c // b]) for a in parts]
        found = [tf.einsum("rkbc,rbo->kcbo", a, d) for a in parts]
        return tf.reshape(tf.stack(found), [k, w // b, o])

    def _summed(self, rows, shape, term, others=None):
        """Return the sums `[g, *shape]` of a term over the rows of each group."""
        calls = [
            (self.windows.sizes(x), self.windows.padded(x), *other)
            for x, *other in zip(self.inputs, *([others] if others else []), strict=True)
        ]
        if rows is None:
            every = tf.range(tf.shape(self.inputs[0])[0])
            return self._sum(every, shape, term, calls)[None]
        return tf.map_fn(
            lambda own: self._sum(tf.gather(own[0], tf.range(own[1])), shape, term, calls),
            (rows.index, rows.count),
            fn_output_signature=tf.TensorSpec(shape, tf.float64),
            parallel_iterations=1,  # of which each holds patches
        )

    def _sum(self, examples, shape, term, calls):
        """Return the sum of a term over the rows of some examples."""
        total = tf.zeros(shape, tf.float64)
        for call in calls:
            total += self._sum_of_call(examples, shape, term, *call)
        return total

    def _sum_of_call(self, examples, shape, term, sizes, padded, other=None):
        """Sum over chunks: some examples as a whole, or a stretch of one along the first axis."""
        first, rest = sizes[0], math.prod(sizes[1:])
        stride, reach = self.strides[0], self.windows.reach[0]
        if other is not None:
            other = tf.reshape(other, tf.stack([-1, first, rest, other.shape[-1]]))
        slabs = CHUNK_BYTES // (8 * self._slab_width * rest)
        at_once = tf.maximum(1, slabs // ((first - 1) * stride + reach))
        cuts = -(-first // tf.maximum(1, (slabs - reach) // stride + 1))
        number = cuts * -(-tf.size(examples) // at_once)

        def add(chunk, total):
            number_before = chunk // cuts * at_once
            own = examples[number_before : number_before + at_once]
            begin, end = chunk % cuts * first // cuts, (chunk % cuts + 1) * first // cuts
            size = end - begin
            places = begin * stride + tf.range((size - 1) * stride + reach)
            found = self.windows.unfolded(_gathered(padded, places, own), sizes)
            arguments = [_with_rows(found), size]
            if other is not None:
                arguments.append(_with_rows(_gathered(other, begin + tf.range(size), own)))
            return chunk + 1, total + term(*arguments)

        zeros = tf.zeros(shape, tf.float64)
        return tf.while_loop(
            lambda chunk, _: chunk < number, add, (tf.constant(0), zeros), parallel_iterations=1
        )[1]


def _gathered(tensor, places, examples):
    """Return `[t, n, …]` of `[n, t, …]`: some places of some examples."""
    return tf.gather_nd(tensor, tf.stack(tf.meshgrid(examples, places), axis=-1))


def _with_rows(tensor):
    """Return `[t, …, w]` as `[t, r, w]` in float64."""
    shape, w = tf.shape(tensor), tensor.shape[-1]
    flat = tf.reshape(tensor, tf.stack([shape[0], tf.reduce_prod(shape[1:-1]), w]))
    return tf.cast(flat, tf.float64)
