"""Gram matrices of windows that slide along an axis, from lagged products.

Letters: `t` place along the axis, `r` all other rows, `w` feature, `k` places that a window sees,
`l` lag, `g` group.

A window at place `t` holds `y[t + p d]` for `p = 0 … k-1`, with dilation `d`. Block `(p, q)` of the
Gram matrix of all windows sums `y[t]ᵀ y[t + l d]`, of lag `l = q - p`, over the places from `p d`
on, as many as there are windows. So blocks of equal lag sum the same products but for the ends:

    what all blocks of the lag share  +  the places before it from p d on  +  p d places after it

`k` lags take `k` products of all rows instead of the `k²` of all pairs of offsets. Terms are only
added, never taken away again, so a small interior between large ends loses no digits.

Source: the matrix is that of the covariance method of linear prediction (Makhoul, "Linear
prediction: a tutorial review", Proc. IEEE 63, 1975), whose blocks along a diagonal differ by their
ends alone.
"""

import numpy as np
import tensorflow as tf


def pays(size, k, dilation):
    """Tell whether the windows overlap enough for lagged products.

    Args:
        size: Number of windows along the axis, or a tensor if it is not static.
        k: Places that a window sees.
        dilation: Distance of two of them.

    Returns:
        `True` if they may be used, and then they take fewer multiplications.
    """
    return isinstance(size, int) and size >= least(k, dilation) and k > 1


def least(k, dilation):
    """Return the smallest number of windows that `lagged` takes.

    Args:
        k: Places that a window sees.
        dilation: Distance of two of them.
    """
    return (k - 1) * dilation


def lagged(y, size, k, dilation):
    """Return the blocks on and above the diagonal of the Gram matrix of windows, by lag.

    Args:
        y: float64 tensor `[t, r, w]`, `t = size + (k - 1) dilation`.
        size: Number of windows along the axis, at least `least(k, dilation)`.
        k: Places that a window sees.
        dilation: Distance of two of them.

    Returns:
        float64 tensor `[k (k + 1) / 2, w, w]`: blocks `(p, p + l)` for each `l`, and then each `p`.
    """
    blocks = []
    for lag in range(k):
        ends, shift = k - 1 - lag, lag * dilation
        before = ends * dilation
        shared = _product(y[before:size], y[before + shift : size + shift], 1)
        if ends:
            first = _product(y[:before], y[shift : before + shift], ends)
            last = _product(y[size : size + before], y[size + shift :], ends)
            shared += tf.cumsum(tf.pad(first, [(0, 1), (0, 0), (0, 0)]), reverse=True)
            shared += tf.cumsum(tf.pad(last, [(1, 0), (0, 0), (0, 0)]))
        blocks.append(shared)
    return tf.concat(blocks, axis=0)


def whole(blocks, k):
    """Return Gram matrices, from the blocks that `lagged` returns.

    Args:
        blocks: Tensor `[g, k (k + 1) / 2, w, w]`.
        k: Places that a window sees.

    Returns:
        Tensor `[g, k w, k w]`.
    """
    p, q = np.indices((k, k))
    lag = abs(q - p)
    number = lag * k - lag * (lag - 1) // 2 + np.minimum(p, q)
    w = blocks.shape[-1]
    every = tf.transpose(tf.gather(blocks, number, axis=1), [0, 1, 3, 2, 4])
    upper = tf.reshape(every, [-1, k * w, k * w])
    is_upper = np.kron(p <= q, np.ones((w, w), bool))
    return tf.where(is_upper, upper, tf.linalg.matrix_transpose(upper))


def _product(left, right, parts):
    """Return `[parts, w, w]`, each the product of so many places, one after the other."""
    w = left.shape[-1]
    left, right = (tf.reshape(tensor, [parts, -1, w]) for tensor in (left, right))
    return tf.matmul(left, right, transpose_a=True)
