"""Gram matrices of windows that slide along an axis, from lagged products.

Letters: `w` feature, `t` place along the axis, `r` all other rows, `k` places that a window sees,
`l` lag.

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


def pays(size, k, dilation):
    """Tell whether the windows overlap enough for lagged products.

    Args:
        size: Number of windows along the axis.
        k: Places that a window sees.
        dilation: Distance of two of them.

    Returns:
        `True` if they may be used, and then they take fewer multiplications.
    """
    return size >= (k - 1) * dilation and k > 1


def lagged(y, size, k, dilation):
    """Return the blocks on and above the diagonal of the Gram matrix of windows, by lag.

    Args:
        y: float64 array `[w, t, r]`, `t = size + (k - 1) dilation`.
        size: Number of windows along the axis, at least `(k - 1) dilation`.
        k: Places that a window sees.
        dilation: Distance of two of them.

    Returns:
        float64 array `[k (k + 1) / 2, w, w]`: blocks `(p, p + l)` for each `l`, and then each `p`.
    """
    blocks = []
    for lag in range(k):
        before, shift = (k - 1 - lag) * dilation, lag * dilation
        shared = _product(y, before, size, shift)
        first = [_product(y, at, at + dilation, shift) for at in range(0, before, dilation)]
        last = [
            _product(y, size + at, size + at + dilation, shift)
            for at in range(0, before, dilation)
        ]
        zero = np.zeros_like(shared)
        from_here_on = np.cumsum([zero, *first[::-1]], axis=0)[::-1]
        up_to_here = np.cumsum([zero, *last], axis=0)
        blocks.append(shared + from_here_on + up_to_here)
    return np.concatenate(blocks)


def whole(blocks, k):
    """Return a Gram matrix, from the blocks that `lagged` returns.

    Args:
        blocks: Array `[k (k + 1) / 2, w, w]`.
        k: Places that a window sees.

    Returns:
        Array `[k w, k w]`.
    """
    w = blocks.shape[-1]
    gram = np.empty((k, w, k, w))
    number = 0
    for lag in range(k):
        for p in range(k - lag):
            gram[p, :, p + lag] = blocks[number]
            gram[p + lag, :, p] = blocks[number].T
            number += 1
    return gram.reshape(k * w, k * w)


def _product(y, begin, end, shift):
    """Return `[w, w]`: the places from `begin` to `end`, times those `shift` further on."""
    w, _, r = y.shape
    flat = y.reshape(w, -1)
    left = flat[:, begin * r : end * r]
    # The same array twice, of which BLAS computes half.
    right = left if shift == 0 else flat[:, (begin + shift) * r : (end + shift) * r]
    return left @ right.T
