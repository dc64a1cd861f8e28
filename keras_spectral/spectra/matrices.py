"""The matrices whose spectra are taken, for the whole batch and for each group.

Letters: `n` example, `s` position, `i` input feature, `o` output feature, `g` group, `m` examples
of the largest group.
"""

import tensorflow as tf

from keras_spectral.spectra.factors import is_formed, rows_of
from keras_spectral.spectra.rows import taken


def group_matrix(factor, quantity, rows, dtype=tf.float64):
    """Return the matrices whose spectra are taken.

    Args:
        factor: `Factors` of one weight.
        quantity: `"activation"`, `"adjoint"` or `"gradient"`.
        rows: `GroupRows`, or `None` for the whole batch (`g = 1`).
        dtype: Precision of products of tensors; other matrices are float64.

    Returns:
        Tensor `[g, m * s, i]`, `[g, m * s, o]` or `[g, …, …]`, rows padded with zeros.
    """
    if quantity != "gradient":
        return taken(rows_of(getattr(factor, quantity)), rows, dtype)
    if factor.group_gradients is not None:
        wanted = factor.group_gradients[:1] if rows is None else factor.group_gradients[1:]
        return tf.cast(wanted, tf.float64)
    if factor.example_gradients is not None:
        i, o = factor.gradient_shape
        flat = tf.reshape(factor.example_gradients, [-1, 1, i * o])
        return tf.reshape(tf.reduce_sum(taken(flat, rows), axis=1), [-1, i, o])
    a, d = factor.activation, factor.adjoint
    if not is_formed(a):
        return a.products(d, rows)
    if not is_formed(d):
        return tf.linalg.matrix_transpose(d.products(a, rows))
    return tf.matmul(taken(a, rows, dtype), taken(d, rows, dtype), transpose_a=True)


def smaller_gram(factor, quantity, rows):
    """Return the Gram matrices of features `[g, d, d]` of an activation or adjoint, in float64.

    Args:
        factor: As in `group_matrix`.
        quantity: `"activation"` or `"adjoint"`.
        rows: As in `group_matrix`.
    """
    part = getattr(factor, quantity)
    if hasattr(part, "grams"):
        return part.grams(rows)
    x = rows_of(part)
    if _is_long(x):
        return _sums_of_examples(x, rows)
    x = taken(x, rows)
    return tf.matmul(x, x, transpose_a=True)


def _is_long(x):
    return x.shape[1] is not None and x.shape[1] >= x.shape[2]


def _sums_of_examples(x, rows):
    """Return the Gram matrices of features, example by example: none needs all of x in float64."""
    w = x.shape[-1]

    def gram(own):
        own = tf.cast(own, tf.float64)
        return tf.matmul(own, own, transpose_a=True)

    shape = tf.TensorSpec([w, w], tf.float64)
    each = tf.map_fn(gram, x, fn_output_signature=shape, parallel_iterations=1)
    if rows is None:
        return tf.reduce_sum(each, axis=0, keepdims=True)
    return tf.reduce_sum(tf.gather(tf.pad(each, [[0, 1], [0, 0], [0, 0]]), rows.index), axis=1)


def smaller_grams(factor, quantity, rows):
    """Return the smaller Gram matrices `[1 + g, d, d]` of the whole batch and of each group.

    Args:
        factor: As in `group_matrix`.
        quantity: As in `group_matrix`.
        rows: `GroupRows`, or `None` if there is no group.
    """
    if quantity == "gradient":
        found, (i, o) = gradients(factor, rows), factor.gradient_shape
        return tf.matmul(found, found, transpose_a=i >= o, transpose_b=i < o)
    return _whole_and_groups(lambda own: smaller_gram(factor, quantity, own), rows, adds_up=True)


def gradients(factor, rows, dtype=tf.float64):
    """Return the gradients `[1 + g, …, …]` of the whole batch and of each group.

    Args:
        factor: As in `group_matrix`.
        rows: `GroupRows`, or `None` if there is no group.
        dtype: As in `group_matrix`.
    """

    def of(own):
        return group_matrix(factor, "gradient", own, dtype)

    return _whole_and_groups(of, rows, factor.adds_up("gradient"))


def _whole_and_groups(part, rows, adds_up):
    """Return what `part` returns for the whole batch and for each group, joined.

    Where every example is in exactly one group, what groups have adds up to what the batch has:
    half the work.
    """
    if rows is None:
        return part(None)
    if not adds_up:
        return tf.concat([part(None), part(rows)], axis=0)
    groups = part(rows)
    whole = tf.cond(
        rows.divide,
        lambda: tf.reduce_sum(groups, axis=0, keepdims=True),
        lambda: part(None),
    )
    return tf.concat([whole, groups], axis=0)
