"""Records of layer calls in a watched pass, and what the backward pass adds to them.

Letters: `n` example, `g` group.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from keras_spectral.capture.keras_layers import losses_kept


@dataclass(frozen=True)
class Call:
    """One call of a layer in the forward pass.

    Attributes:
        inputs: The inputs of the layer, after casting to its compute dtype.
        outputs: Tuple of tensors with respect to which the loss is differentiated: the
            pre-activation `Z`, or all tensors that the layer returned.
        again: Function that runs the call once more, for rules that need it, or `None`.
    """

    inputs: Any
    outputs: tuple
    again: Any = None

    @property
    def leading(self):
        """Set of the static sizes of the leading axes of the outputs."""
        return {output.shape[0] if output.shape.rank else 0 for output in self.outputs}


class Received(NamedTuple):
    """Arguments and state of one call of a layer, from which it can be run again.

    Attributes:
        args: Positional arguments.
        kwargs: Arguments by name.
        state: Pairs of each non-trainable variable (a moving average, the state of a random
            generator) and its value before the call.
    """

    args: tuple
    kwargs: dict
    state: list

    @property
    def inputs(self):
        """The first argument."""
        return next(iter((*self.args, *self.kwargs.values())))

    def run_by(self, layer, values=()):
        """Return the outputs of another run of the layer, which does not change its state.

        Args:
            layer: The layer.
            values: Pairs of a variable and the value that it takes during the call.
        """
        with losses_kept(layer), keras.StatelessScope([*self.state, *values]):
            return layer(*self.args, **self.kwargs)


def state_of(layer):
    """Return pairs of each non-trainable variable of a layer and its value.

    Args:
        layer: A built Keras layer.
    """
    return [(v, tf.identity(v.value)) for v in layer.non_trainable_variables]


class Backward(NamedTuple):
    """Facts about a batch that rules need to turn adjoints into factors.

    Attributes:
        n: Scalar tensor, the number of examples.
        mask: 0/1 tensor `[n, g]`, or `None`.
        scale: Factor by which the loss was multiplied for mixed precision, or `None`.
    """

    n: Any
    mask: Any
    scale: Any = None


def unscaled(adjoint, scale):
    """Return the adjoint of the unscaled loss, in at least float32.

    Args:
        adjoint: Tensor, `∂(scale L)/∂Z`.
        scale: Factor by which the loss was multiplied for mixed precision, or `None`.
    """
    if scale is None:
        return adjoint
    # The unscaled adjoint may underflow in float16: cast first.
    wide = unscaled_type(adjoint.dtype)
    return tf.cast(adjoint, wide) / tf.cast(scale, wide)


def unscaled_type(dtype):
    """Return the dtype of an unscaled adjoint: at least float32.

    Args:
        dtype: The dtype of the scaled adjoint.
    """
    return tf.float64 if dtype == tf.float64 else tf.float32


def float_tensors(structure):
    """Return the floating-point tensors of a structure.

    Args:
        structure: What a layer received or returned.

    Returns:
        List of tensors.
    """
    return [leaf for leaf in keras.tree.flatten(structure) if _is_float_tensor(leaf)]


def ends_of(outputs):
    """Return the tensors by which a loss depends on the outputs of a layer.

    Args:
        outputs: What the layer returned.

    Returns:
        List of tensors.
    """
    # Keras' losses use the logits of a softmax and bypass its output.
    return [getattr(y, "_keras_logits", y) for y in float_tensors(outputs)]


def copied(value):
    """Return an identity of an output: one output may depend on another, or be the same tensor.

    Args:
        value: Tensor, or anything else, which is returned as it is.
    """
    if not _is_float_tensor(value):
        return value
    result = tf.identity(value)
    for mark in ("_keras_mask", "_keras_logits"):
        if hasattr(value, mark):
            setattr(result, mark, getattr(value, mark))
    return result


def _is_float_tensor(value):
    # `tf.is_tensor` is true for variables of Keras.
    own = tf.is_tensor(value) and not isinstance(value, keras.Variable)
    return own and value.dtype.is_floating
