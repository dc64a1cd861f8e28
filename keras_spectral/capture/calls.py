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
        inputs: What the layer received (after casting to its compute type).
        outputs: Tuple of tensors with respect to which the loss is differentiated: `Z`, to which
            the activation function is applied, or all that the layer returned.
        again: Function by which the rule runs the call once more, if one look is not enough.
    """

    inputs: Any
    outputs: tuple
    again: Any = None

    @property
    def leading(self):
        """Set of the sizes of the leading axes of the outputs, as far as they are known."""
        return {output.shape[0] if output.shape.rank else 0 for output in self.outputs}


class Received(NamedTuple):
    """What one call of a layer received, from which it can be run again.

    Attributes:
        args: Positional arguments.
        kwargs: Arguments by name.
        state: Pairs of each variable that is not trained (a moving average, the state of a random
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
        """Return what the layer returns, which keeps the state that it has.

        Args:
            layer: The layer.
            values: Pairs of a variable and the value that it has meanwhile.
        """
        with losses_kept(layer), keras.StatelessScope([*self.state, *values]):
            return layer(*self.args, **self.kwargs)


def state_of(layer):
    """Return pairs of each variable of a layer that is not trained, and its value.

    Args:
        layer: A built Keras layer.
    """
    return [(v, tf.identity(v.value)) for v in layer.non_trainable_variables]


class Backward(NamedTuple):
    """What is at hand after the backward pass.

    Attributes:
        n: Scalar tensor, the number of examples.
        mask: 0/1 tensor `[n, g]`, or `None`.
        scale: Factor by which the loss was multiplied for mixed precision, or `None`.
    """

    n: Any
    mask: Any
    scale: Any = None


def unscaled(adjoint, scale):
    """Return an adjoint of the loss itself, in a type that holds it well.

    Args:
        adjoint: Tensor, `∂(scale L)/∂Z`.
        scale: Factor by which the loss was multiplied for mixed precision, or `None`.
    """
    if scale is None:
        return adjoint
    # float16 holds the scaled adjoint well and the unscaled one badly: widen first.
    wide = unscaled_type(adjoint.dtype)
    return tf.cast(adjoint, wide) / tf.cast(scale, wide)


def unscaled_type(dtype):
    """Return the type of what was scaled: at least float32.

    Args:
        dtype: The type that it had before.
    """
    return tf.float64 if dtype == tf.float64 else tf.float32
