"""Captured gradients compared with those of plain differentiation.

Letters: `n` example, `s` position, `i` input feature, `o` output feature.

Random cotangents `D [n, …]` take the place of `∂L/∂output`. The gradient that a rule captures is
compared with that of a tape, once for all examples and once for some, with the cotangents of all
others zero.
"""

import itertools
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_spectral.capture.calls import Backward
from keras_spectral.capture.watching import watched_pass
from keras_spectral.errors import LayerRuleError
from keras_spectral.matrices.factors import WeightMatrices
from keras_spectral.matrices.members import Members

TOLERANCE = 1e-4
"""Largest difference, relative to the Frobenius norm of the gradient."""

COARSE_TOLERANCE = 5e-2
"""Largest difference for a layer that computes in 16 bits."""

NEGLIGIBLE = 1e-2
"""For a gradient smaller than this fraction of the layer's largest, differences are relative to
that fraction."""

SEED = 0


@dataclass(frozen=True)
class Comparison:
    """The difference of the captured gradient of one weight from that of the tape.

    Attributes:
        site: `Site` of the layer.
        name: Name of the weight.
        variable: The weight.
        of_all: Largest difference for all examples, relative to the norm of the gradient.
        of_some: The same for some of the examples.
    """

    site: Any
    name: str
    variable: Any
    of_all: float
    of_some: float

    @property
    def tolerance(self):
        """The largest difference attributed to rounding."""
        return tolerance_of(self.site)

    @property
    def ok(self):
        """Whether the gradients agree."""
        return max(self.of_all, self.of_some) <= self.tolerance

    def row(self):
        """Return the row of the table."""
        return {
            "layer": self.site.path,
            "weight": self.name,
            "rule": type(self.site.rule).__name__,
            "shape": tuple(self.variable.shape),
            "error": max(self.of_all, self.of_some),
            "ok": self.ok,
        }


@np.errstate(invalid="ignore", over="ignore")
def comparisons(captured, forward, inputs):
    """Return a `Comparison` for each captured weight that a gradient reaches.

    Args:
        captured: List of `Site`.
        forward: Function that calls the layer.
        inputs: Structure of tensors.

    Raises:
        LayerRuleError: If an output of the layer does not lead with the example.
    """
    run = _Run(captured, forward, inputs)
    differences = defaultdict(list)
    for members in (np.ones(run.n, bool), run.some):
        pairs = run.gradients(members)
        largest = max((np.linalg.norm(gradient) for _, gradient in pairs.values()), default=0)
        for (site, name), pair in pairs.items():
            difference = relative_difference(site, name, *pair, NEGLIGIBLE * largest)
            differences[site, name].append(difference)
    return [
        Comparison(site, name, dict(site.weights)[name], *both)
        for (site, name), both in differences.items()
    ]


def tolerance_of(site):
    """Return the largest relative difference attributed to rounding in a layer.

    Args:
        site: `Site`.
    """
    coarse = site.layer.compute_dtype in {"float16", "bfloat16"}
    return COARSE_TOLERANCE if coarse else TOLERANCE


def relative_difference(site, name, found, gradient, least):
    """Return the difference of a captured gradient from another one, relative to its norm.

    Args:
        site: `Site`.
        name: Name of the weight.
        found: Array `[…, …]`, the captured gradient as a matrix.
        gradient: Array of the shape of the weight.
        least: Smallest norm to which the difference is taken relative.
    """
    scale = max(np.linalg.norm(gradient), least) or 1.0
    if gradient.size == found.size:  # nearly always the same, and in the same order
        difference = np.abs(found - gradient.reshape(found.shape)).max(initial=0.0)
        if difference <= tolerance_of(site) * scale:
            return difference / scale
    layouts = _layouts(site, name, gradient, found.shape)
    return _difference(found, layouts, tolerance_of(site) * scale) / scale


class _Run:
    """Watched forward passes of a layer, with random cotangents of its outputs.

    One pass per set of examples: fused kernels of a GPU can be differentiated only once.

    Args:
        captured: List of `Site`.
        forward: Function that calls the layer.
        inputs: Structure of tensors.
    """

    def __init__(self, captured, forward, inputs):
        self._sites = captured
        self._forward = lambda: forward(inputs)
        self.n = keras.tree.flatten(inputs)[0].shape[0]
        self.some = np.random.default_rng(SEED).permutation(self.n) < (self.n + 1) // 2

    def gradients(self, members):
        """Return `{(site, weight name): (captured, by the tape)}`, the part of some examples.

        Args:
            members: Boolean array `[n]`.
        """
        weights = {(site, name): v for site in self._sites for name, v in site.weights}
        watched = watched_pass(
            self._sites,
            lambda: _leading_outputs(self._forward(), self.n),
            [variable.value for variable in weights.values()],
            lambda outputs: _cotangents(outputs, members),
        )
        adjoints = [None if d is None else tf.convert_to_tensor(d) for d in watched.adjoints]
        groups = Members.of(np.stack([members, np.ones(self.n, bool)], axis=1))
        given = Backward(tf.constant(self.n), tf.constant(groups.mask[:, 1:]))
        factors = watched.factors(given)
        mixing = _mixing(watched.forward, adjoints, members)
        return {
            (site, name): (
                WeightMatrices(factors[site.path, name]).gradient(
                    groups, 2 if site.path in mixing else 1
                ),
                np.zeros(variable.shape)
                if gradient is None
                else np.asarray(tf.convert_to_tensor(gradient), float),
            )
            for ((site, name), variable), gradient in zip(
                weights.items(), watched.gradients, strict=True
            )
            if (site.path, name) in factors
        }


def _cotangents(outputs, members):
    """Return random cotangents of some tensors, zero but for some examples."""
    rng = np.random.default_rng(SEED)
    return [
        tf.cast(rng.standard_normal(y.shape) * members.reshape([-1] + [1] * (y.ndim - 1)), y.dtype)
        for y in outputs
    ]


def _mixing(watched, adjoints, members):
    """Return the paths of layers after which examples interact: others have adjoints too."""
    left, paths = iter(adjoints), set()
    for site, call in watched.calls:
        own = [d for d in itertools.islice(left, len(call.outputs)) if d is not None]
        if any(np.any(d.numpy()[~members]) for d in own):
            paths.add(site.path)
    return paths


def _leading_outputs(outputs, n):
    """Return the floating-point tensors of a structure, all of which must lead with the example."""
    leaves = [leaf for leaf in keras.tree.flatten(outputs) if tf.is_tensor(leaf)]
    leaves = [leaf for leaf in leaves if leaf.dtype.is_floating]
    if not leaves or any(leaf.shape[:1] != [n] for leaf in leaves):
        raise LayerRuleError(
            "`layer` must return floating-point tensors whose first axis is the example. "
            f"Received: outputs of shapes {[tuple(leaf.shape) for leaf in leaves]} for {n} "
            "examples. Try a model in which the layer is followed by others."
        )
    return leaves


def _layouts(site, name, gradient, shape):
    """Return the gradient of a weight in the matrix layouts that a captured one may have."""
    if len(shape) == 2 and gradient.size == shape[0] * shape[1]:
        layouts = [gradient.reshape(shape), gradient.reshape(shape[::-1]).T]
    else:  # rows that are zero may be left out, as those of absent tokens
        layouts = [gradient.reshape(-1, shape[1])]
    layouts.append(site.rule.matrices(site.layer, name, tf.constant(gradient)[None])[0].numpy())
    return layouts


def _difference(found, layouts, tolerated):
    """Return the largest difference of entries or, if that is too large, of singular values."""
    if not all(np.isfinite(matrix).all() for matrix in (found, *layouts)):
        return np.inf
    found, *layouts = (_without_zero_rows(m, found.shape) for m in (found, *layouts))
    entries = [np.abs(found - m).max() for m in layouts if m.shape == found.shape]
    if entries and min(entries) <= tolerated:
        return min(entries)
    sigma = _singular_values(found)
    spectra = [
        np.abs(_padded(sigma, s) - _padded(s, sigma)).max() for s in map(_singular_values, layouts)
    ]
    return min(entries + spectra)


def _without_zero_rows(matrix, shape):
    """Return a matrix of another shape than the one captured without rows that are zero."""
    if matrix.shape == shape or matrix.shape[1:] != shape[1:]:
        return matrix
    there = matrix[matrix.any(axis=1)]
    return there if len(there) == shape[0] else matrix


def _singular_values(matrix):
    return np.linalg.svd(matrix, compute_uv=False)


def _padded(sigma, other):
    return np.pad(sigma, (0, max(0, len(other) - len(sigma))))
