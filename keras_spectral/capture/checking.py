"""A check of what is captured of a layer, against plain differentiation, with hints."""

import dataclasses

import keras
import pandas as pd
import tensorflow as tf

from keras_spectral.capture.alignment import aligned_sites
from keras_spectral.capture.calls import Backward
from keras_spectral.capture.comparison import comparisons
from keras_spectral.capture.registered import RegisteredRule
from keras_spectral.capture.sites import sites
from keras_spectral.capture.watching import watched_pass
from keras_spectral.errors import LayerRuleError


def check_layer(layer, inputs, training=False):
    """Compare the gradients that are captured of a layer with plain differentiation.

    Args:
        layer: A Keras layer or model. It is built if necessary; its variables are not changed.
        inputs: Array, or structure of arrays, with one row per example: the first argument of its
            call.
        training: Whether to call it in training mode.

    Returns:
        DataFrame with one row per captured weight, including those of sublayers: `layer` (its
        path), `weight`, `rule`, `shape`, `error` and `ok`. The error is the largest absolute
        difference of the two gradients as matrices, relative to the Frobenius norm. If only
        singular values agree, as with another order of rows or columns, it is that of the singular
        values.

    Raises:
        LayerRuleError: If a gradient differs, the result of a registered function does not fit the
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
    found = comparisons(captured, forward, inputs)
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
    """A model of one layer, at which weights are watched that cannot be watched at the layer."""

    def call(self, x, training=None):
        """Call the layer."""
        return self.layer(x, training=training)


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
    """Return what to try, first another activation function."""
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
            for comparison in comparisons([dataclasses.replace(site, rule=rule)], forward, inputs)
        )
    except (AttributeError, TypeError, ValueError, tf.errors.OpError):
        return False  # the function does not support this adjoint


def _require_graph(registered, forward, inputs):
    """Check that functions run where the number of examples is not known, as in `fit`."""
    if not registered:
        return
    spec = keras.tree.map_structure(lambda x: tf.TensorSpec([None, *x.shape[1:]], x.dtype), inputs)

    def trace(x, factors=True):
        watched = watched_pass(registered, lambda: keras.tree.flatten(forward(x)))
        if factors:
            watched.factors(Backward(tf.shape(keras.tree.flatten(x)[0])[0], None))
        return tf.constant(0)

    try:
        tf.function(lambda x: trace(x, factors=False)).get_concrete_function(spec)
    except Exception:  # a layer may raise anything
        return  # the layer itself needs a known number of examples
    try:
        tf.function(trace, autograph=False).get_concrete_function(spec)
    except Exception as error:
        raise LayerRuleError(
            f"{registered[0].rule} must also work where the number of examples is not known, as in "
            f"`fit`. Received: {error}. Try `tf.shape(x)[0]`, or -1, in the place of `x.shape[0]`."
        ) from error
