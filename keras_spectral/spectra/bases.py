"""Bases that follow the leading singular vectors of many matrices while a network trains.

Letters: `n` example, `s` position, `w` feature, `g` group (the whole batch first), `b` columns of a
basis, `r` row of a matrix, `p` matrix.

From one recorded step to the next a network changes little, so the bases `V` of the last one are
nearly right, and one more iteration is enough:

    Y = M V,    Q = an orthonormal basis of the columns of Y,    Z = MᵀQ,    V = Z scaled.

The columns of all groups stand side by side: one product, or one convolution, serves all of them,
and a group is its rows of `Y`. Runs in the graph, in the precision that `operators` choose; what is
small is done in float64. `subspace` finds singular values from `ZᵀZ`, and says how good they are.
"""

import numpy as np
import tensorflow as tf

from keras_spectral.spectra.operators import operator

COLD_PASSES = 4
"""Iterations at the first recorded step, which begins with random bases."""

DEPENDENT = 1e-10
"""Columns of `Y` with less than this part of the energy of the largest count as dependent."""

ROUNDINGS = 10
"""Roundings of the data's precision by which an energy may be wrong."""

ROUNDINGS_OF_SMALL = 20
"""Roundings of float64 by which what is done with small matrices may put it wrong besides."""


class Bases:
    """The bases of each stack, in variables that outlive a step."""

    def __init__(self):
        self._variables = {}

    def of(self, stack, matrices, n_blocks):
        """Return the variables of a stack, made at the first call.

        Args:
            stack: `Subspaces`.
            matrices: Its matrices (`operators`), for their widths and precision.
            n_blocks: One more than the number of groups.

        Returns:
            `(bases, followed)`: list of variables `[g, w, b]`, and a boolean variable, whether they
            have followed any step yet.
        """
        key = stack, n_blocks, tuple(m.dtype for m in matrices)
        if key not in self._variables:
            with tf.init_scope():
                starts = [_random(m, n_blocks, stack.columns) for m in matrices]
                bases = [tf.Variable(start, trainable=False) for start in starts]
                self._variables[key] = bases, tf.Variable(False, trainable=False)
        return self._variables[key]


def kept_of_subspaces(stack, factors, members, rows, bases):
    """Return what a step keeps of a stack, after one more iteration of its bases.

    Args:
        stack: `Subspaces`.
        factors: List of `Factors`, one per weight.
        members: Boolean tensor `[n, g]`, its first column all true.
        rows: `GroupRows` of the groups, or `None` if there is none.
        bases: `Bases`.

    Returns:
        float64 tensor `[p, g, b² + 2]`, see `Subspaces`.
    """
    matrices = [operator(factors[j], q, members, rows) for j, q in stack.wanted]
    variables, followed = bases.of(stack, matrices, members.shape[1])
    b = stack.columns

    def once_more(number, old, _):
        return number + 1, *_iterated(matrices, old, b)

    _, new, grams = tf.while_loop(
        lambda number, *_: number < tf.where(followed, 1, COLD_PASSES),
        once_more,
        (
            tf.constant(0),
            [tf.convert_to_tensor(variable) for variable in variables],
            tf.zeros([len(matrices), members.shape[1], b, b], tf.float64),
        ),
        parallel_iterations=1,
    )
    for variable, value in zip(variables, new, strict=True):
        variable.assign(value)
    followed.assign(True)
    energies = tf.stack([matrix.energies for matrix in matrices])[..., None]
    epsilons = np.array([np.finfo(m.dtype.as_numpy_dtype).eps for m in matrices])
    parts = ROUNDINGS * epsilons + ROUNDINGS_OF_SMALL * np.finfo(float).eps
    roundings = parts[:, None, None] * energies
    flat = tf.reshape(grams, [len(matrices), members.shape[1], b * b])
    return tf.concat([flat, energies, roundings], axis=-1)


def _iterated(matrices, old, b):
    """Return the next bases of all matrices, and `ZᵀZ` `[p, g, b, b]`."""
    seen = [m.times(v) for m, v in zip(matrices, old, strict=True)]
    lengths, turns = _eigh(tf.stack([_gram(y) for y in seen]))
    independent = lengths > DEPENDENT * lengths[..., -1:]
    scales = tf.where(independent, tf.math.rsqrt(tf.where(independent, lengths, 1.0)), 0.0)
    turns = turns * scales[..., None, :]
    new, grams, overlaps = [], [], []
    for p, (matrix, y) in enumerate(zip(matrices, seen, strict=True)):
        q = tf.cast(tf.matmul(tf.cast(y, tf.float64), turns[p]), y.dtype)
        z = matrix.transposed_times(q)
        norms = tf.cast(tf.norm(tf.cast(z, tf.float64), axis=1, keepdims=True), z.dtype)
        alive = norms > 0.0  # nor NaN
        fresh = tf.constant(_random(matrix, 1, b))  # in place of directions that are not there
        new.append(tf.where(alive, z / tf.where(alive, norms, 1.0), fresh))
        grams.append(_gram(z))
        overlaps.append(_gram(q))
    return new, _of_orthonormal(tf.stack(grams), tf.stack(overlaps))


def _of_orthonormal(grams, overlaps):
    """Return `ZᵀZ` as of columns `Q (QᵀQ)^(-1/2)`, which are orthonormal up to rounding.

    Where a column of `Y` nearly depends on others, what is made of it has lost digits.
    """
    lengths, turns = _eigh(overlaps)
    there = lengths > 0.5  # 1 but for rounding; 0 where a column was dependent
    scales = tf.where(there, tf.math.rsqrt(tf.where(there, lengths, 1.0)), 0.0)
    mend = tf.matmul(turns * scales[..., None, :], turns, transpose_b=True)
    return tf.matmul(tf.matmul(mend, grams), mend)


def _eigh(grams):
    # What overflowed would make TensorFlow raise.
    finite = tf.where(tf.math.is_finite(grams), grams, 0.0)
    with tf.device("CPU:0"):  # many and small
        return tf.linalg.eigh(finite)


def _gram(x):
    x = tf.cast(x, tf.float64)
    return tf.matmul(x, x, transpose_a=True)


def _random(matrix, n_blocks, b):
    shape = n_blocks, matrix.width, b
    return np.random.default_rng(0).standard_normal(shape).astype(matrix.dtype.as_numpy_dtype)
