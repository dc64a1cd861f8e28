"""The operations of a matrix, and its plain form: a tensor `[n, s, w]`.

Letters: `n` example, `s` position, `w` feature, `m` some examples, `c` columns, `i` input feature,
`o` output feature.

A matrix has a row for every example and position, and `w` features. A form must implement `rows`;
the other operations are derived from it, and a form overrides those that it can do faster.

NumPy works on tensors in host memory: it uses them without a copy, and its float64 products take a
fraction of the time of TensorFlow's on a CPU. TensorFlow works on tensors of another device, on
that device.
"""

import numpy as np
import tensorflow as tf

CHUNK_NUMBERS = 500_000
"""Approximate size of the float64 rows that are formed at a time, at least those of one example."""


class Matrix:
    """A matrix of `n * positions` rows and `width` features; a form defines these and `rows`."""

    n_blocks = 1
    """Blocks of features, each multiplied by columns of the weight of its own."""

    adds_up = True
    """Whether the product of a group is the sum of the products of its examples."""

    def rows(self, examples=None):
        """Return the rows of some examples in float64.

        Args:
            examples: Integer array `[m]`, or `None` for all.

        Returns:
            float64 array `[m * s, w]`.
        """
        raise NotImplementedError

    def gram(self, examples=None):
        """Return the Gram matrix of the features over the rows of some examples.

        Args:
            examples: As in `rows`; at least one.

        Returns:
            float64 array `[w, w]`.
        """
        return sum(gram(self.rows(chunk)) for chunk in self.chunks(examples))

    def product(self, other, examples=None):
        """Return the product of this matrix, transposed, with another matrix.

        Args:
            other: `Matrix` with the same number of rows.
            examples: As in `rows`; at least one.

        Returns:
            float64 array `[i, o]`: the gradient of a weight, if the other is its adjoint.
        """
        chunks = self.chunks(examples, self.width + other.width)
        return sum(transposed(self.rows(chunk)) @ other.rows(chunk) for chunk in chunks)

    def matmul(self, columns):
        """Return the product of this matrix with some columns.

        Args:
            columns: Array `[w, c]`.

        Returns:
            Array `[n, s, c]` of the dtype of `columns`.
        """
        found = np.asarray(self.rows(), columns.dtype) @ columns
        return found.reshape(self.n, self.positions, -1)

    def rmatmul(self, rows):
        """Return the product of this matrix, transposed, with some columns.

        Args:
            rows: Array `[n, s, c]`.

        Returns:
            Array `[w, c]` of the dtype of `rows`.
        """
        own = np.asarray(self.rows(), rows.dtype)
        return own.T @ rows.reshape(len(own), -1)

    def energies(self):
        """Return the sum of squares of each example's rows, a float64 array `[n]`."""
        each = (self.rows(chunk) for chunk in self.chunks(None))
        return np.concatenate([_energies(rows, self.positions) for rows in each])

    def finite(self):
        """Return this matrix with NaN and Inf replaced by zeros."""
        return self

    def gradient_shape(self, o):
        """Return the shape of the gradient of a weight whose activation this is.

        Args:
            o: Width of the adjoint.
        """
        return self.width // self.n_blocks, o

    def chunks(self, examples, width=None):
        """Return the examples in parts, the rows of each of which can be formed at once.

        Args:
            examples: As in `rows`.
            width: Size of a row, `w` if not given.
        """
        each = max(1, self.positions * (width or self.width))
        size = max(1, CHUNK_NUMBERS // each)
        examples = np.arange(self.n) if examples is None else examples
        if len(examples) <= size:
            return [None if len(examples) == self.n else examples]
        return [examples[begin : begin + size] for begin in range(0, len(examples), size)]


class Rows(Matrix):
    """A matrix that is given as a tensor.

    Args:
        tensor: Tensor or array `[n, s, w]`.

    Attributes:
        tensor: The same.
    """

    def __init__(self, tensor):
        self.tensor = tensor
        self._array = array(tensor)
        self.n, self.positions, self.width = (int(size) for size in self._array.shape)

    def rows(self, examples=None):
        """Return the rows of some examples in float64."""
        return float64(flat(taken(self._array, examples)))

    def matmul(self, columns):
        """Return the product of this matrix with some columns."""
        found = flat(self._typed(columns.dtype)) @ columns
        return found.reshape(self.n, self.positions, -1)

    def rmatmul(self, rows):
        """Return the product of this matrix, transposed, with some columns."""
        own = flat(self._typed(rows.dtype))
        return own.T @ rows.reshape(len(own), -1)

    def finite(self):
        """Return this matrix with NaN and Inf replaced by zeros."""
        own = np.asarray(self._array)
        return Rows(np.where(np.isfinite(own), own, np.zeros_like(own)))

    def _typed(self, dtype):
        return np.asarray(self._array).astype(dtype, copy=False)


def array(tensor):
    """Return a tensor as a NumPy array, without a copy, if it is in host memory.

    Args:
        tensor: Eager tensor or array.

    Returns:
        NumPy array, or the tensor itself if it is on another device.
    """
    if isinstance(tensor, np.ndarray):
        return tensor
    return np.asarray(tensor) if "CPU" in tensor.device else tensor  # `numpy()` would copy


def float64(x):
    """Return an array or tensor in float64.

    Args:
        x: NumPy array or tensor.
    """
    return x.astype(np.float64, copy=False) if isinstance(x, np.ndarray) else tf.cast(x, tf.float64)


def taken(x, examples):
    """Return some examples of an array or tensor, without a copy if they are contiguous.

    Args:
        x: NumPy array or tensor `[n, …]`.
        examples: Increasing integer array `[m]`, or `None` for all.
    """
    if examples is None:
        return x
    if examples[-1] - examples[0] == len(examples) - 1:
        return x[examples[0] : examples[-1] + 1]
    return x[examples] if isinstance(x, np.ndarray) else tf.gather(x, examples)


def flat(x):
    """Return `[n, s, w]` as `[n * s, w]`.

    Args:
        x: NumPy array or tensor.
    """
    shape = (-1, x.shape[-1])
    return x.reshape(shape) if isinstance(x, np.ndarray) else tf.reshape(x, shape)


def transposed(x):
    """Return a matrix, or each matrix of a batch, transposed.

    Args:
        x: NumPy array or tensor `[…, i, o]`.
    """
    return x.swapaxes(-1, -2) if isinstance(x, np.ndarray) else tf.linalg.matrix_transpose(x)


def gram(x):
    """Return `xᵀx`. BLAS recognises the form and computes one triangle only.

    Args:
        x: NumPy array or tensor `[r, w]`.
    """
    return transposed(x) @ x


def _energies(rows, positions):
    own = np.asarray(rows).reshape(-1, positions * rows.shape[-1])
    return np.einsum("nk,nk->n", own, own)
