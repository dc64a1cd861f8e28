"""Matrices as what they do to others, for the whole batch and all groups at once.

Letters: `n` example, `s` position, `w` feature, `g` group (the whole batch first), `b` columns,
`r` row of a matrix, `c = g b`.

The columns for all groups stand side by side: one product serves all of them, and a group has its
rows of the result. A product with the patches of a convolution is a convolution, and one with their
transpose a filter gradient, so patches are never formed.
"""

import math

import tensorflow as tf

from keras_spectral.spectra.factors import rows_of
from keras_spectral.spectra.matrices import gradients
from keras_spectral.spectra.patches import Patches


def operator(factor, quantity, members, rows):
    """Return the matrices of one weight.

    Args:
        factor: `Factors` of the weight.
        quantity: `"activation"`, `"adjoint"` or `"gradient"`.
        members: Boolean tensor `[n, g]`, its first column all true.
        rows: `GroupRows` of the groups, or `None` if there is none.

    Returns:
        An object with `width` and `dtype`, `energies` (float64 `[g]`, the squares of the Frobenius
        norms, NaN or Inf where there is one in the matrix), `times` (`[g, w, b]` to `[g, r, b]`)
        and `transposed_times` (back again), which take NaN and Inf for 0.
    """
    part = getattr(factor, quantity, None)
    given = part, factor.activation, factor.group_gradients, factor.example_gradients
    first = next(p for p in given if p is not None)
    # In float32 a GPU may multiply with three digits (TensorFloat-32), which no bound reckons with.
    precise = first.dtype == tf.float64 or tf.config.list_physical_devices("GPU")
    dtype = tf.float64 if precise else tf.float32
    if quantity == "gradient":
        return _Formed(tf.cast(gradients(factor, rows, dtype), dtype))
    if isinstance(part, Patches):
        return _Unfolded(part, members, dtype)
    return _Rows(tf.cast(rows_of(part), dtype), members)


class _Formed:
    """Matrices `[g, r, w]`, as they are."""

    def __init__(self, tensor):
        self.dtype, self.width = tensor.dtype, int(tensor.shape[-1])
        self.energies = tf.reduce_sum(_square(tensor), axis=[1, 2])
        finite = tf.math.is_finite(self.energies)[:, None, None]
        self._tensor = tf.where(finite, tensor, 0.0)

    def times(self, v):
        return tf.matmul(self._tensor, v)

    def transposed_times(self, q):
        return tf.matmul(self._tensor, q, transpose_a=True)


class _OfMembers:
    """Matrices whose rows are those of the members among all examples.

    A kind adds `_times`, from `[w, c]` to `[n, s, c]`, and `_transposed_times`, back again.
    """

    def __init__(self, width, dtype, energies, members):
        self.width, self.dtype = width, dtype
        # Not products with 0, which NaN would spoil.
        self.energies = tf.reduce_sum(tf.where(members, energies[:, None], 0.0), axis=0)
        self._members = tf.cast(members, dtype)

    def times(self, v):
        y = self._times(_side_by_side(v))
        n, s = tf.unstack(tf.shape(y)[:2])
        g, _, b = v.shape
        own = tf.reshape(y, tf.stack([n, s, g, b])) * self._members[:, None, :, None]
        return tf.transpose(tf.reshape(own, tf.stack([n * s, g, b])), [1, 0, 2])

    def transposed_times(self, q):
        g, _, b = q.shape
        n = tf.shape(self._members)[0]
        z = self._transposed_times(tf.reshape(_side_by_side(q), tf.stack([n, -1, g * b])))
        return tf.transpose(tf.reshape(z, [self.width, g, b]), [1, 0, 2])


class _Rows(_OfMembers):
    """The same of a tensor `[n, s, w]`."""

    def __init__(self, tensor, members):
        energies = tf.reduce_sum(_square(tensor), axis=[1, 2])
        super().__init__(int(tensor.shape[-1]), tensor.dtype, energies, members)
        self._tensor = tf.where(tf.math.is_finite(tensor), tensor, 0.0)

    def _times(self, v):
        return tf.einsum("nsw,wc->nsc", self._tensor, v)

    def _transposed_times(self, q):
        x, y = (tf.reshape(tensor, [-1, tensor.shape[-1]]) for tensor in (self._tensor, q))
        return tf.matmul(x, y, transpose_a=True)


class _Unfolded(_OfMembers):
    """The same of `Patches` of one block."""

    def __init__(self, patches, members, dtype):
        self._windows = patches.windows
        ones = tf.ones([*patches.kernel, 1, 1], tf.float64)
        squares = [tf.reduce_sum(_square(x), axis=-1, keepdims=True) for x in patches.inputs]
        energies = tf.add_n([_of_examples(self._convolved(x, ones)) for x in squares])
        super().__init__(patches.width, dtype, energies, members)
        inputs = [tf.cast(x, dtype) for x in patches.inputs]
        self._inputs = [tf.where(tf.math.is_finite(x), x, 0.0) for x in inputs]

    def _times(self, v):
        n, c = tf.shape(self._members)[0], v.shape[1]
        found = [self._convolved(x, self._filters(v)) for x in self._inputs]
        return tf.concat([tf.reshape(y, tf.stack([n, -1, c])) for y in found], axis=1)

    def _transposed_times(self, q):
        n, c = tf.shape(self._members)[0], q.shape[2]
        filters = self._filters(tf.zeros([self.width, c], self.dtype))
        sizes = [self._windows.sizes(x) for x in self._inputs]
        parts = tf.split(q, [math.prod(size) for size in sizes], axis=1)
        total = tf.zeros([self.width, c], self.dtype)
        for x, part, size in zip(self._inputs, parts, sizes, strict=True):
            with tf.GradientTape() as tape:
                tape.watch(filters)
                y = self._convolved(x, filters)
            wanted = tape.gradient(y, filters, tf.reshape(part, tf.stack([n, *size, c])))
            total += tf.reshape(wanted, [self.width, c])
        return total

    def _filters(self, v):
        return tf.reshape(v, [*self._windows.kernel, -1, v.shape[1]])

    def _convolved(self, x, filters):
        windows = self._windows
        return tf.nn.convolution(
            windows.padded(x), filters, windows.strides, "VALID", dilations=windows.dilation
        )


def _square(tensor):
    wide = tf.cast(tensor, tf.float64)
    return wide * wide


def _of_examples(tensor):
    return tf.reduce_sum(tensor, axis=range(1, tensor.shape.rank))


def _side_by_side(blocks):
    """Return `[g, r, b]` as `[r, g b]`."""
    g, _, b = blocks.shape
    return tf.reshape(tf.transpose(blocks, [1, 0, 2]), [-1, g * b])
