"""The matrices whose spectra are taken, for the whole batch and for each group.

Letters: `n` example, `s` position, `i` input feature, `o` output feature, `g` group, `m` examples
of the largest group.
"""

import tensorflow as tf


def group_matrix(factor, quantity, rows):
    """Return the matrices whose spectra are taken, in float64.

    Args:
        factor: `Factors` of one weight.
        quantity: `"activation"`, `"adjoint"` or `"gradient"`.
        rows: `GroupRows`, or `None` for the whole batch (`g = 1`).

    Returns:
        Tensor `[g, m * s, i]`, `[g, m * s, o]` or `[g, …, …]`, rows padded with zeros.
    """
    if quantity == "activation":
        return _rows_of(factor.activation, rows)
    if quantity == "adjoint":
        return _rows_of(factor.adjoint, rows)
    if factor.group_gradients is not None:
        wanted = factor.group_gradients[:1] if rows is None else factor.group_gradients[1:]
        return tf.cast(wanted, tf.float64)
    if factor.is_product:
        a, d = _rows_of(factor.activation, rows), _rows_of(factor.adjoint, rows)
        return tf.matmul(a, d, transpose_a=True)
    i, o = factor.gradient_shape
    flat = tf.reshape(factor.example_gradients, [-1, 1, i * o])
    return tf.reshape(tf.reduce_sum(_rows_of(flat, rows), axis=1), [-1, i, o])


def _rows_of(x, rows):
    x = tf.cast(x, tf.float64)
    return tf.reshape(x, [1, -1, x.shape[-1]]) if rows is None else rows.take(x)
