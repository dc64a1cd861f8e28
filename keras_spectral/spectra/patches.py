"""The unfolded patches of a convolution, as a matrix that is never formed as a whole.

Letters: `n` example, `s` output position, `c` channel, `k` kernel offset, `b` block of channels,
`i` features of a patch, `o` output channel, `g` group, `d` spatial axes.

Row `(n, s)` holds what the kernel sees at that position, `i = k c` numbers, so a convolution is the
product of this matrix and its kernel `[k c, o]`. With several blocks (a grouped convolution) each
block of features meets its own columns of the kernel alone.

Products run over a few rows at a time. Besides the padded input they hold a few copies of
`CHUNK_BYTES` of patches, or of the patches of one slice of one example along the first spatial
axis, if that is more.

Source: Chellapilla, Puri, Simard, "High performance convolutional neural networks for document
processing" (2006), for the unfolding.
"""

import itertools
import math

import tensorflow as tf

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
        return math.prod(self.kernel) * self.inputs[0].shape[-1]

    @property
    def positions(self):
        """Positions of all calls: an integer if it is static, else a scalar tensor."""
        return sum(math.prod(self._sizes(x)) for x in self.inputs)

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
        return self._of(x for patches in (self, *others) for x in patches.inputs)

    def rows(self):
        """Return all patches, formed: a tensor `[n, s, i]`."""
        parts = []
        for x in self.inputs:
            sizes = self._sizes(x)
            n = tf.shape(x)[0]
            found = self._windows(self._padded(x), tf.range(n * sizes[0]), sizes)
            parts.append(tf.reshape(found, tf.stack([n, math.prod(sizes), self.width])))
        return tf.concat(parts, axis=1)

    def grams(self, rows):
        """Return `AᵀA [g, i, i]` of each group, in float64.

        Args:
            rows: `GroupRows`, or `None` for the whole batch (`g = 1`).
        """
        return self._summed(rows, (self.width, self.width), _gram)

    def products(self, other, rows):
        """Return `AᵀΔ [g, i / b, o]` of each group, in float64: filter gradients.

        Args:
            other: Tensor `[n, s, o]`.
            rows: `GroupRows`, or `None` for the whole batch (`g = 1`).
        """
        counts = [math.prod(self._sizes(x)) for x in self.inputs]
        others = tf.split(other, counts, axis=1) if len(counts) > 1 else [other]
        return self._summed(rows, self.gradient_shape(other.shape[-1]), self._product, others)

    def cast(self, dtype):
        """Return the same in another precision."""
        return self._of(tf.cast(x, dtype) for x in self.inputs)

    def finite(self):
        """Return the same with zeros in place of NaN and Inf."""
        return self._of(tf.where(tf.math.is_finite(x), x, 0.0) for x in self.inputs)

    def _of(self, inputs):
        return Patches(
            tuple(inputs), self.kernel, self.strides, self.dilation, self.padding, self.blocks
        )

    def energies(self):
        """Return the sums `[n]` of the squares of all patches of each example, in float64."""
        ones = tf.ones([*self.kernel, 1, 1], tf.float64)
        squares = [tf.cast(x, tf.float64) ** 2 for x in self.inputs]
        sums = [tf.reduce_sum(square, axis=-1, keepdims=True) for square in squares]
        found = [self._convolved(x, ones) for x in sums]
        return tf.add_n([tf.reduce_sum(x, axis=range(1, x.shape.rank)) for x in found])

    def times(self, v):
        """Return the product with a matrix `[i, b]`, a convolution: `[n, s, b]`.

        Needs `blocks = 1`.
        """
        filters = self._filters(v)
        found = [self._convolved(x, filters) for x in self.inputs]
        n, b = tf.shape(self.inputs[0])[0], v.shape[-1]
        return tf.concat([tf.reshape(x, tf.stack([n, -1, b])) for x in found], axis=1)

    def transposed_times(self, q):
        """Return the product of the transpose with a matrix `[n, s, b]`, a filter gradient."""
        b = q.shape[-1]
        filters = self._filters(tf.zeros([self.width, b], self.dtype))
        n = tf.shape(q)[0]
        counts = [math.prod(self._sizes(x)) for x in self.inputs]
        total = tf.zeros([self.width, b], self.dtype)
        for x, own in zip(self.inputs, tf.split(q, counts, axis=1), strict=True):
            with tf.GradientTape() as tape:
                tape.watch(filters)
                y = self._convolved(x, filters)
            own = tf.reshape(own, tf.stack([n, *self._sizes(x), b]))
            total += tf.reshape(tape.gradient(y, filters, own), [self.width, b])
        return total

    def _filters(self, v):
        return tf.reshape(v, [*self.kernel, -1, v.shape[-1]])

    def _convolved(self, x, filters):
        return tf.nn.convolution(
            self._padded(x), filters, self.strides, "VALID", dilations=self.dilation
        )

    def _product(self, patches, other):
        a = tf.reshape(patches, [-1, self.blocks, self.width // self.blocks])
        d = tf.reshape(other, [-1, self.blocks, other.shape[-1] // self.blocks])
        return tf.reshape(tf.einsum("rbi,rbo->ibo", a, d), [a.shape[-1], other.shape[-1]])

    def _summed(self, rows, shape, term, others=None):
        if rows is None:
            return self._sum(None, shape, term, others)[None]
        return tf.map_fn(
            lambda own: self._sum(tf.gather(own[0], tf.range(own[1])), shape, term, others),
            (rows.index, rows.count),
            fn_output_signature=tf.TensorSpec(shape, tf.float64),
            parallel_iterations=1,  # of which each holds patches
        )

    def _sum(self, examples, shape, term, others):
        """Return the sum of a term over the rows of some examples, or of all."""
        total = tf.zeros(shape, tf.float64)
        for x, other in zip(self.inputs, others or itertools.repeat(None), strict=False):
            total += self._sum_of_call(x, other, examples, shape, term)
        return total

    def _sum_of_call(self, x, other, examples, shape, term):
        sizes, padded = self._sizes(x), self._padded(x)
        n = tf.shape(x)[0]
        first, rest = sizes[0], math.prod(sizes[1:])
        if other is not None:
            other = tf.reshape(other, tf.stack([n * first, rest, other.shape[-1]]))
        examples = tf.range(n) if examples is None else examples
        slices = tf.reshape(examples[:, None] * first + tf.range(first), [-1])
        step = tf.maximum(1, CHUNK_BYTES // (8 * self.width * rest))

        def add(begin, total):
            chunk = slices[begin : begin + step]
            patches = tf.cast(self._windows(padded, chunk, sizes), tf.float64)
            arguments = [tf.reshape(patches, [-1, self.width])]
            if other is not None:
                found = tf.cast(tf.gather(other, chunk), tf.float64)
                arguments.append(tf.reshape(found, [-1, other.shape[-1]]))
            return begin + step, total + term(*arguments)

        zeros = tf.zeros(shape, tf.float64)
        return tf.while_loop(
            lambda begin, _: begin < tf.size(slices),
            add,
            (tf.constant(0), zeros),
            parallel_iterations=1,
        )[1]

    def _windows(self, padded, slices, sizes):
        """Return the patches `[slice, …, i]` of slices, numbered along example and first axis."""
        example, first = slices // sizes[0], slices % sizes[0]
        along_first = first[:, None] * self.strides[0] + tf.range(self.kernel[0]) * self.dilation[0]
        example = tf.broadcast_to(example[:, None], tf.shape(along_first))
        seen = tf.gather_nd(padded, tf.stack([example, along_first], axis=-1))
        offsets = itertools.product(*(range(k) for k in self.kernel[1:]))
        parts = [seen[(slice(None), slice(None), *self._strided(at, sizes))] for at in offsets]
        together = tf.stack(parts, axis=2)  # [slice, k_1, k_rest, …, c]
        c = padded.shape[-1]
        inner = list(range(3, 2 + len(self.kernel)))
        together = tf.transpose(together, [0, *inner, 1, 2, 2 + len(self.kernel)])
        shape = [tf.shape(slices)[0], *sizes[1:], math.prod(self.kernel)]
        if self.blocks > 1:
            together = tf.reshape(together, tf.stack([*shape, self.blocks, c // self.blocks]))
            axes = list(range(len(shape) - 1))
            together = tf.transpose(together, [*axes, len(shape), len(shape) - 1, len(shape) + 1])
        return tf.reshape(together, tf.stack([*shape[:-1], self.width]))

    def _strided(self, offset, sizes):
        for at, dilation, stride, size in zip(
            offset, self.dilation[1:], self.strides[1:], sizes[1:], strict=True
        ):
            begin = at * dilation
            yield slice(begin, begin + (size - 1) * stride + 1, stride)

    def _sizes(self, x):
        """Return the output positions along every spatial axis, static where they can be."""
        return [
            (size + sum(pad) - reach) // stride + 1
            for size, pad, reach, stride in zip(
                _spatial(x), self._pads(x), self._reach(), self.strides, strict=True
            )
        ]

    def _padded(self, x):
        return tf.pad(x, [(0, 0), *self._pads(x), (0, 0)])

    def _pads(self, x):
        if self.padding == "valid":
            return [(0, 0)] * len(self.kernel)
        if self.padding == "causal":
            return [(reach - 1, 0) for reach in self._reach()]
        missing = [
            _at_least_0((-(-size // stride) - 1) * stride + reach - size)
            for size, reach, stride in zip(_spatial(x), self._reach(), self.strides, strict=True)
        ]
        return [(total // 2, total - total // 2) for total in missing]

    def _reach(self):
        return [(k - 1) * rate + 1 for k, rate in zip(self.kernel, self.dilation, strict=True)]


def _gram(patches):
    return tf.matmul(patches, patches, transpose_a=True)


def _spatial(x):
    sizes = enumerate(x.shape[1:-1], start=1)
    return [tf.shape(x)[axis] if size is None else size for axis, size in sizes]


def _at_least_0(size):
    return tf.maximum(size, 0) if tf.is_tensor(size) else max(size, 0)
