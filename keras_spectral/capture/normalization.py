"""Normalisations: the output is scaled and shifted last, each by a vector.

Letters: `n` example, `o` feature.

With `Y = γ X̂ + β` and `D = ∂L/∂Y`, the gradients that flow through the output rows of an example
are `Σ D ∘ X̂` and `Σ D`, summed over all axes except that of the features. X̂ is the output of the
layer for `γ = 1` and `β = 0`: one forward pass serves all groups, and no backward pass is needed. A
and Δ are those of the generic rule.
"""

import keras
import tensorflow as tf

from keras_spectral.capture.calls import unscaled
from keras_spectral.capture.generic import GenericRule
from keras_spectral.matrices.factors import Factors


class NormalizationRule(GenericRule):
    """Captures the normalisation layers of Keras that have weights."""

    layer_types = (
        keras.layers.BatchNormalization,
        keras.layers.GroupNormalization,
        keras.layers.LayerNormalization,
        keras.layers.RMSNormalization,
    )
    left_to_generic = (
        "several axes",
        "half precision",
        "of RMSNormalization another axis than the last",
        "subclasses",
    )

    def obstacle(self, layer):
        """Return why this layer cannot be captured by the rule, or `None`."""
        if type(layer) not in self.layer_types:
            return "a subclass, which may not compute the same again"
        axes = keras.tree.flatten(layer.axis)
        if len(axes) > 1:
            return "normalises along several axes"
        if isinstance(layer, keras.layers.RMSNormalization) and axes != [-1]:
            return "scales the last axis, and normalises along another"
        if layer.compute_dtype not in ("float32", "float64"):
            return "computes in half precision, in which X̂ would be rounded"
        return super().obstacle(layer)

    def gradients(self, layer, calls, adjoints, backward):
        """Return `Factors` of every weight, without A and Δ."""
        weights = [variable for _, variable in self.weights(layer)]

        deltas = [unscaled(delta, backward.scale) for (delta,) in adjoints]
        each = [_of_examples(layer, weights, *own) for own in zip(calls, deltas, strict=True)]
        found = [tf.add_n(own) for own in zip(*each, strict=True)]
        return [Factors(None, None, example_gradients=own) for own in found]


def _of_examples(layer, weights, call, delta):
    """Return each example's part `[n, 1, o]` of the gradient of every weight."""
    shift = getattr(layer, "beta", None)
    neutral = [] if shift is None else [(shift, tf.zeros(shift.shape))]
    neutral += [(weight, tf.ones(weight.shape)) for weight in weights if weight is not shift]
    normal = call.inputs.run_by(layer, neutral)
    (axis,) = (axis % delta.shape.rank for axis in keras.tree.flatten(layer.axis))
    others = [k for k in range(1, delta.shape.rank) if k != axis]
    return [
        tf.reduce_sum(delta if weight is shift else delta * normal, axis=others)[:, None]
        for weight in weights
    ]
