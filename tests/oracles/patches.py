"""The patches of a convolution, looked up number by number. Shares no code with the package."""

import itertools

import numpy as np


def patches(x, kernel, strides, dilation, padding, blocks=1):
    """Return the rows `[n, s, i]` of one call, blocks of channels first.

    `x` is an array `[n, *d, c]`, `padding` is `"valid"`, `"same"` or `"causal"`, as in Keras.
    """
    n, *spatial, c = x.shape
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    if padding == "same":
        sizes = [-(-size // stride) for size, stride in zip(spatial, strides, strict=True)]
        total = [
            max((out - 1) * stride + r - size, 0)
            for out, stride, r, size in zip(sizes, strides, reach, spatial, strict=True)
        ]
        before = [t // 2 for t in total]
    elif padding == "causal":
        before = [r - 1 for r in reach]
        sizes = [(size - 1) // stride + 1 for size, stride in zip(spatial, strides, strict=True)]
    else:
        axes = zip(spatial, reach, strides, strict=True)
        sizes = [(size - r) // stride + 1 for size, r, stride in axes]
        before = [0] * len(spatial)
    rows = []
    for position in itertools.product(*map(range, sizes)):
        row = np.zeros((n, blocks, int(np.prod(kernel)), c // blocks))
        for j, offset in enumerate(itertools.product(*map(range, kernel))):
            at = np.multiply(position, strides) + np.multiply(offset, dilation) - before
            if all(0 <= i < size for i, size in zip(at, spatial, strict=True)):
                row[:, :, j] = x[(slice(None), *at)].reshape(n, blocks, -1)
        rows.append(row.reshape(n, -1))
    return np.stack(rows, axis=1)


def product_of_blocks(a, d, blocks):
    """Return `AᵀΔ [i / b, o]` of rows `[n, s, …]`: each block meets its own columns alone."""
    pairs = zip(np.split(a, blocks, axis=-1), np.split(d, blocks, axis=-1), strict=True)
    return np.concatenate([np.einsum("nsi,nso->io", *pair) for pair in pairs], axis=-1)
