"""A small multilayer perceptron in float64 NumPy: what every peer must find in it."""

from itertools import pairwise

import numpy as np

LAYERS = ("hidden_1", "hidden_2", "output")
WIDTHS = (20, 16, 12, 2)
BATCH = 24
TOLERANCE = 1e-4
"""Of the largest singular value of a matrix."""

NORM = "norm"
"""Quantity of a peer that has no spectra: the norm of a weight's gradient."""


def data():
    """Return inputs, targets and groups of one batch."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((BATCH, WIDTHS[0]), dtype="float32")
    return x, rng.integers(0, 2, BATCH), np.array(["a", "b", "a"] * (BATCH // 3))


def parameters():
    """Return kernel `[i, o]` and bias of each layer, float32."""
    rng = np.random.default_rng(2)
    kernels = [rng.standard_normal(shape) / shape[0] ** 0.5 for shape in pairwise(WIDTHS)]
    biases = [rng.standard_normal(width) / 10 for width in WIDTHS[1:]]
    return [(k.astype("f"), b.astype("f")) for k, b in zip(kernels, biases, strict=True)]


def spectra(x, y, masks, groups):
    """Return singular values by `(layer, quantity, group)`.

    Args:
        x: Inputs.
        y: Targets.
        masks: Examples of each group, `[group, n]`.
        groups: Names of the groups.
    """
    weights = [(np.float64(kernel), np.float64(bias)) for kernel, bias in parameters()]
    inputs, outputs = [np.float64(x)], []
    for kernel, bias in weights:
        outputs.append(inputs[-1] @ kernel + bias)
        inputs.append(np.maximum(outputs[-1], 0.0))
    exponentials = np.exp(outputs[-1] - outputs[-1].max(axis=1, keepdims=True))
    delta = exponentials / exponentials.sum(axis=1, keepdims=True)
    delta[np.arange(len(y)), y] -= 1.0
    delta /= len(y)
    found = {}
    for k in reversed(range(len(weights))):
        for mask, group in zip(masks, groups, strict=True):
            a, d = inputs[k][mask], delta[mask]
            for quantity, matrix in {"activation": a, "adjoint": d, "gradient": a.T @ d}.items():
                found[LAYERS[k], quantity, group] = np.linalg.svd(matrix, compute_uv=False)
        if k:
            delta = delta @ weights[k][0].T * (outputs[k - 1] > 0)
    return found


def errors(found, expected, quantities):
    """Return the largest error of each quantity, relative to the largest singular value.

    Args:
        found: Singular values by `(layer, quantity, group)`; `NORM`, of the gradient of the whole
            batch, by `(layer, NORM, "all")`.
        expected: What `spectra` returned.
        quantities: Those that must have been found, for every layer and group.

    Raises:
        ValueError: If something is missing, or should not be there.
    """
    if quantities == (NORM,):
        expected = {
            (layer, NORM, group): np.linalg.norm(values, keepdims=True)
            for (layer, quantity, group), values in expected.items()
            if (quantity, group) == ("gradient", "all")
        }
    due = {key for key in expected if key[1] in quantities}
    if set(found) != due:
        missing, more = sorted(due - set(found)), sorted(set(found) - due)
        raise ValueError(f"Every spectrum was expected. Missing: {missing}; not due: {more}.")
    worst = dict.fromkeys(quantities, 0.0)
    for key in due:
        size = max(len(found[key]), len(expected[key]))
        one, other = (
            np.pad(np.sort(v)[::-1], (0, size - len(v))) for v in (found[key], expected[key])
        )
        worst[key[1]] = max(worst[key[1]], float(abs(one - other).max() / other[0]))
    return worst
