"""Any layer with trainable weights: exact group gradients by automatic differentiation.

Letters: `n` example, `s` position, `i` input feature, `o` output feature, `g` group.

Let `Y` be all outputs of a call and `D = ∂L/∂Y`, held constant. Then `∂⟨Y, m_g ∘ D⟩/∂W`, with `m_g`
1 for the examples of group `g` and 0 for all others, is the part of the gradient that flows through
the output rows of the group. This definition also holds for a layer that mixes examples, as
BatchNormalization in training. Losses that a layer adds by `add_loss` do not flow through its
output and belong to no example.

A is the input `[n, …, i]` and Δ is D itself, `[n, …, o]`. The columns of a gradient are the last
axis of the weight, all other axes are flattened. The gradient of a vector has one row, and its only
singular value is its norm. A and Δ belong to the layer and are recorded once, with its first
weight.
"""

import math
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import keras
import tensorflow as tf

from keras_spectral.capture.calls import (
    Call,
    Received,
    copied,
    ends_of,
    float_tensors,
    state_of,
    unscaled,
    unscaled_type,
)
from keras_spectral.capture.keras_layers import attributes, name_of_call, numbered, own_variables
from keras_spectral.capture.rule import InWords, Rule
from keras_spectral.matrices.factors import Factors, with_positions


class GenericRule(Rule):
    """Captures every layer whose calls can be watched and whose output leads with the example."""

    layer_types = (keras.layers.Layer,)
    in_words = (
        InWords(
            "every trainable one",
            "the input `[n, …, i]`",
            "`∂L/∂Y [n, …, o]`",
            "`[…, o]`, all axes but the last flattened; of a vector `[1, o]`",
        ),
    )
    left_to_generic = ()

    def obstacle(self, layer):
        """Return why this layer cannot be captured by the rule, or `None`."""
        if not self.weights(layer):
            return "no trainable weights"
        return None

    def weights(self, layer):
        """Return the layer's own trainable weights, by name.

        Weights such as the scales of float8 are left out: their update overwrites them with the
        "gradient".
        """
        own = [v for v in own_variables(layer) if v.trainable and not v.overwrite_with_gradient]
        return list(zip(numbered(variable.name for variable in own), own, strict=True))

    @contextmanager
    def watched(self, layer, calls, watch=None):
        """Return a context in which every call of the layer is appended to `calls`."""
        called = name_of_call(layer)
        call = getattr(layer, called)
        repeatable = _is_repeatable(layer)

        def listening_call(*args, **kwargs):
            received = Received(args, kwargs, state_of(layer) if repeatable else [])
            outputs, taped = _taped(partial(call, *args, **kwargs))
            again = partial(_repeated, layer, received) if repeatable else lambda: taped
            calls.append(Call(received, taped.outputs, again))
            return outputs

        with attributes(layer, **{called: listening_call}):
            yield

    def factors(self, layer, calls, adjoints, backward):
        """Return A, Δ and the gradients of every weight."""
        adjoints = [
            [tf.zeros_like(y) if d is None else d for y, d in zip(call.outputs, own, strict=True)]
            for call, own in zip(calls, adjoints, strict=True)
        ]
        inputs = [_leading_input(call) for call in calls]
        activation = _joined(inputs, backward.n)
        adjoint = _joined([unscaled(own[0], backward.scale) for own in adjoints], backward.n)
        first, *others = self.gradients(layer, calls, adjoints, backward)
        factors = [first._replace(activation=activation, adjoint=adjoint), *others]
        return {name: own for (name, _), own in zip(self.weights(layer), factors, strict=True)}

    def gradients(self, layer, calls, adjoints, backward):
        """Return `Factors` of every weight, without A and Δ.

        Args:
            layer: The layer.
            calls: List of `Call`.
            adjoints: For each call a list of `∂L/∂output`, in the shapes of its outputs.
            backward: `Backward`.
        """
        variables = [variable for _, variable in self.weights(layer)]
        found = _group_gradients(variables, calls, adjoints, backward)
        return [Factors(None, None, group_gradients=own) for own in found]


class Taped(NamedTuple):
    """A call recorded on a tape of its own, which holds no earlier operations.

    Attributes:
        outputs: Tuple of the floating-point tensors that were returned.
        tape: Persistent `tf.GradientTape`.
    """

    outputs: tuple
    tape: tf.GradientTape


def _taped(call):
    """Return what a call returns, and the `Taped` call."""
    with tf.GradientTape(persistent=True) as tape:
        outputs = call()
        if len(float_tensors(outputs)) > 1:
            # One output may depend on another, or be the same tensor; each needs its own Δ.
            outputs = keras.tree.map_structure(copied, outputs)
    return outputs, Taped(tuple(ends_of(outputs)), tape)


def _is_repeatable(layer):
    """Return whether a layer returns the same again: a layer of Keras without random numbers."""
    # Differentiating the call itself would give its intermediate results a second consumer, and
    # TensorFlow would fuse float operations differently: weights would differ from those of a plain
    # model in the last digit. Running the layer once more leaves the first run unchanged.
    own = getattr(keras.layers, type(layer).__name__, None) is type(layer)
    return own and not layer._layers and not layer._seed_generators


def _repeated(layer, received):
    """Return the `Taped` call of another run of a layer, which does not change its state."""
    return _taped(partial(received.run_by, layer))[1]


def _group_gradients(variables, calls, adjoints, backward):
    """Return the gradients `[1 + g, …, …]` of some weights through the batch and every group."""
    masks = tf.ones([1, backward.n])
    if backward.mask is not None:
        masks = tf.concat([masks, tf.cast(tf.transpose(backward.mask), tf.float32)], axis=0)

    def of_one(mask, taped):
        found = [
            tape.gradient(
                outputs,
                [variable.value for variable in variables],
                output_gradients=[d * tf.cast(_along_first(mask, d), d.dtype) for d in own],
                unconnected_gradients=tf.UnconnectedGradients.ZERO,
            )
            for (outputs, tape), own in zip(taped, adjoints, strict=True)
        ]
        found = [tf.add_n([tf.convert_to_tensor(g) for g in of]) for of in zip(*found, strict=True)]
        found = [unscaled(gradient, backward.scale) for gradient in found]
        return [tf.reshape(g, shape) for g, shape in zip(found, shapes, strict=True)]

    shapes = [_matrix_shape(variable.shape) for variable in variables]

    taped = [call.again() for call in calls]
    types = [_type(variable, backward) for variable in variables]
    found = tf.map_fn(lambda mask: of_one(mask, taped), masks, fn_output_signature=types)
    return [tf.ensure_shape(own, [None, *shape]) for own, shape in zip(found, shapes, strict=True)]


def _type(variable, backward):
    own = variable.value.dtype
    return own if backward.scale is None else unscaled_type(own)


def _leading_input(call):
    """Return the first floating-point input that leads with the example as outputs do, or `None`.

    Inputs shared by all examples, such as learned queries, are not an A.
    """
    given = float_tensors((call.inputs.args, call.inputs.kwargs))
    leading = call.outputs[0].shape[0]
    return next((x for x in given if x.shape.rank and x.shape[0] == leading), None)


def _joined(tensors, n):
    """Return tensors `[n, …, w]` as one `[n, s, w]`, or `None` if they have no such form."""
    if any(tensor is None or tensor.shape.rank == 0 for tensor in tensors):
        return None
    tensors = [tensor[:, None] if tensor.shape.rank == 1 else tensor for tensor in tensors]
    if len({tensor.shape[-1] for tensor in tensors}) > 1 or tensors[0].shape[-1] is None:
        return None
    return tf.concat([with_positions(tensor, n) for tensor in tensors], axis=1)


def _along_first(vector, tensor):
    return tf.reshape(vector, [-1] + [1] * (tensor.shape.rank - 1))


def _matrix_shape(shape):
    last = shape[-1] if len(shape) else 1
    return [math.prod(shape[:-1]), last]
