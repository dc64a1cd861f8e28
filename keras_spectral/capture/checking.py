"""Whether what is captured of a layer is what plain differentiation says.

Letters: `n` example, `s` position, `i` input feature, `o` output feature.

The layer is called on given inputs, and random cotangents `D [n, …]` stand for `∂L/∂output`. The
gradient that its rule makes of them, for all examples and for some, is compared with that of the
tape, for some with the cotangents of all others set to zero.
"""

import dataclasses
import itertools
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from keras_spectral.capture.alignment import aligned_sites
from keras_spectral.capture.registered import RegisteredRule
from keras_spectral.capture.rule import Backward
from keras_spectral.capture.sites import sites
from keras_spectral.capture.tape import WatchedForward
from keras_spectral.errors import LayerRuleError
from keras_spectral.spectra.matrices import group_matrix
from keras_spectral.spectra.rows import group_rows

TOLERANCE = 1e-4
"""Largest difference, relative to the Frobenius norm of the gradient."""

COARSE_TOLERANCE = 5e-2
"""The same where the layer computes in 16 bits."""

NEGLIGIBLE = 1e-2
"""A gradient smaller than this part of the layer's largest is compared relative to that part."""

SEED = 0


def check_layer(layer, inputs, training=False):
    """Compare the gradients that are captured of a layer with plain differentiation.

    Args:
        layer: A Keras layer or model. It is built if it must be; its variables stay as they are.
        inputs: Array, or structure of arrays, with one row per example: the first argument of its
            call.
        training: Whether to call it in training mode.

    Returns:
        DataFrame with one row per captured weight, also of the layers within: `layer` (its path),
        `weight`, `rule`, `shape`, `error` and `ok`. The error is the largest absolute difference of
        the two gradients as matrices, relative to the Frobenius norm; of their singular values
        where only these agree, as with another order of rows or columns.

    Raises:
        LayerRuleError: If a gradient differs, a registered function returns what does not fit the
            layer, or there is nothing to check.

    Example:
        >>> import keras
        >>> import numpy as np
        >>> layer = keras.layers.Dense(2, activation="tanh", name="out")
        >>> check_layer(layer, np.ones((4, 3)))[["layer", "weight", "rule", "ok"]].values.tolist()
        [['out', 'kernel', 'DenseRule', True]]
    """
    if not isinstance(layer, keras.layers.Layer):
        raise LayerRuleError(
            f"`layer` must be a Keras layer. Received: {layer!r}. Try `MyLayer(…)`, an instance."
        )
    inputs = keras.tree.map_structure(tf.convert_to_tensor, inputs)
    if not all(part.built for part in layer._flatten_layers()):
        layer(inputs, training=False)  # builds it, and every layer in it

    whole = Whole(layer)

    def forward(x):
        with keras.StatelessScope():
            return whole(x, training=training)

    captured = [site for site in sites(whole) if site.rule is not None]
    captured = aligned_sites(captured, forward, inputs)
    found = _comparisons(captured, forward, inputs)
    if not found:
        raise LayerRuleError(
            "`layer` must have trainable weights that can be captured. "
            f"Received: {layer.name}, a {type(layer).__name__}, which has none. "
            "Try `keras_spectral.coverage` of a model with it, which gives the reason."
        )
    for comparison in found:
        if not comparison.ok:
            raise LayerRuleError(_what_differs(comparison, forward, inputs))
    _require_graph([s for s in captured if isinstance(s.rule, RegisteredRule)], forward, inputs)
    return pd.DataFrame([comparison.row() for comparison in found])


class Whole(keras.layers.Wrapper):
    """A model of one layer: what cannot be watched at the layer itself is watched here."""

    def call(self, x, training=None):
        """Call the layer."""
        return self.layer(x, training=training)


@dataclass(frozen=True)
class Comparison:
    """The gradient of one weight, as it is captured and as the tape has it.

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
        """The largest difference that rounding may make."""
        coarse = self.site.layer.compute_dtype in {"float16", "bfloat16"}
        return COARSE_TOLERANCE if coarse else TOLERANCE

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


def _comparisons(captured, forward, inputs):
    """Return a `Comparison` for each captured weight that a gradient reaches."""
    run = _Run(captured, forward, inputs)
    differences = defaultdict(list)
    for members in (np.ones(run.n, bool), run.some):
        pairs = run.gradients(members)
        largest = max((np.linalg.norm(gradient) for _, gradient in pairs.values()), default=0)
        for (site, name), (found, gradient) in pairs.items():
            scale = max(np.linalg.norm(gradient), NEGLIGIBLE * largest) or 1.0
            layouts = _layouts(site, name, gradient, found.shape)
            differences[site, name].append(_difference(found, layouts, TOLERANCE * scale) / scale)
    return [
        Comparison(site, name, dict(site.weights)[name], *both)
        for (site, name), both in differences.items()
    ]


class _Run:
    """Forward passes of a layer, watched, with random cotangents of what it returns.

    A pass for each set of examples: fused kernels of a GPU can be differentiated once only.

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
        watched = WatchedForward(self._sites)
        with tf.GradientTape() as tape, watched(tape.watch):
            outputs = _leading_outputs(self._forward(), self.n)
        weights = {(site, name): v for site in self._sites for name, v in site.weights}
        found = tape.gradient(
            outputs,
            watched.outputs + [variable.value for variable in weights.values()],
            output_gradients=_cotangents(outputs, members),
        )
        found = [None if part is None else tf.convert_to_tensor(part) for part in found]
        adjoints, gradients = found[: len(watched.outputs)], found[len(watched.outputs) :]
        mask = tf.constant(np.stack([members, np.ones(self.n, bool)], axis=1))
        backward = Backward(tf.constant(self.n), mask, tf.constant(True))
        factors = watched.factors(adjoints, backward)
        mixing = _mixing(watched, adjoints, members)
        return {
            (site, name): (
                group_matrix(factors[site.path, name], "gradient", group_rows(mask))[
                    1 if site.path in mixing else 0
                ].numpy(),
                np.zeros(variable.shape) if gradient is None else np.asarray(gradient, float),
            )
            for ((site, name), variable), gradient in zip(weights.items(), gradients, strict=True)
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
    """Return the paths of layers after which examples meet: others have adjoints too."""
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
    """Return the gradient of a weight as the matrices that a captured one may stand for."""
    if len(shape) == 2 and gradient.size == shape[0] * shape[1]:
        layouts = [gradient.reshape(shape), gradient.reshape(shape[::-1]).T]
    else:  # rows that are zero may be left out, as those of absent tokens
        layouts = [gradient.reshape(-1, shape[1])]
    if hasattr(site.rule, "matrices"):
        layouts.append(site.rule.matrices(site.layer, name, tf.constant(gradient)[None])[0].numpy())
    return layouts


def _difference(found, layouts, tolerated):
    """Return the largest difference of entries or, if that is too large, of singular values."""
    if not all(np.isfinite(matrix).all() for matrix in (found, *layouts)):
        return np.inf
    entries = [np.abs(found - m).max() for m in layouts if m.shape == found.shape]
    if entries and min(entries) <= tolerated:
        return min(entries)
    sigma = _singular_values(found)
    spectra = [
        np.abs(_padded(sigma, s) - _padded(s, sigma)).max() for s in map(_singular_values, layouts)
    ]
    return min(entries + spectra)


def _singular_values(matrix):
    return np.linalg.svd(matrix, compute_uv=False)


def _padded(sigma, other):
    return np.pad(sigma, (0, max(0, len(other) - len(sigma))))


def _what_differs(comparison, forward, inputs):
    """Return the message of the error."""
    site, rule = comparison.site, comparison.site.rule
    registered = isinstance(rule, RegisteredRule)
    author = str(rule) if registered else f"`{type(rule).__name__}`"
    some = comparison.of_all <= comparison.tolerance
    difference = comparison.of_some if some else comparison.of_all
    hint = "Try `register_layer` with a function of your own, and please report this"
    if registered and some:
        hint = "Try A and Δ whose first axis is the example, in the order of the inputs"
    elif registered:
        hint = _hint(site, forward, inputs)
    return (
        f"{author} must return A and Δ whose product AᵀΔ is the gradient of {comparison.name!r}. "
        f"Received: for {'some of the' if some else 'all'} examples one that differs by "
        f"{difference:.2g} of its norm, more than {comparison.tolerance:.0e}, in layer "
        f"{site.path!r}. {hint}."
    )


def _hint(site, forward, inputs):
    """Return what to try, the activation function before all."""
    rule, layer_class = site.rule, site.rule.layer_types[0]
    held = [name for name, value in vars(site.layer).items() if callable(value)]
    for name in (None, *held):
        other = RegisteredRule(layer_class, rule.function, name)
        if name != rule.activation and _reproduces(other, site, forward, inputs):
            given = "without `activation=`" if name is None else f'with `activation="{name}"`'
            adjoint = "∂L/∂output" if name is None else "∂L/∂Z"
            return (
                f"Try `register_layer({layer_class.__name__})` {given}, by which the adjoint is "
                f"{adjoint}: the gradients agree then"
            )
    return (
        "Is Δ ∂L/∂Z? The adjoint is "
        + ("that of the output" if rule.activation is None else "∂L/∂Z")
        + ". Try to multiply it by the derivative of what comes after Z, or `activation=` with the "
        "name of the attribute that holds that function"
    )


def _reproduces(rule, site, forward, inputs):
    try:
        return all(
            comparison.ok
            for comparison in _comparisons([dataclasses.replace(site, rule=rule)], forward, inputs)
        )
    except Exception:
        return False


def _require_graph(registered, forward, inputs):
    """Check that functions run where the number of examples is not known, as in `fit`."""
    if not registered:
        return
    spec = keras.tree.map_structure(lambda x: tf.TensorSpec([None, *x.shape[1:]], x.dtype), inputs)

    def trace(x, factors=True):
        watched = WatchedForward(registered)
        with tf.GradientTape() as tape, watched(tape.watch):
            outputs = keras.tree.flatten(forward(x))
        if factors:
            n = tf.shape(keras.tree.flatten(x)[0])[0]
            adjoints = tape.gradient(outputs, watched.outputs)
            watched.factors(adjoints, Backward(n, None, tf.constant(True)))
        return tf.constant(0)

    try:
        tf.function(lambda x: trace(x, factors=False)).get_concrete_function(spec)
    except Exception:
        return  # the layer itself cannot do without
    try:
        tf.function(trace, autograph=False).get_concrete_function(spec)
    except Exception as error:
        raise LayerRuleError(
            f"{registered[0].rule} must also work where the number of examples is not known, as in "
            f"`fit`. Received: {error}. Try `tf.shape(x)[0]`, or -1, in the place of `x.shape[0]`."
        ) from error
