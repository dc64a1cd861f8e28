"""The normal form of a layer call, declared once.

Letters: `n` example, `s` shared position, `i` input feature, `o` output feature, `g` group,
`r` row (a pair `(n, s)`).

Every covered layer is brought to `Z = A W + b` with `A [n, s, i]`, `W [i, o]`. Its adjoint is
`Δ = ∂L/∂Z [n, s, o]`, and the gradient of the training loss is `G = AᵀΔ`, rows flattened.
"""

import math
from typing import Any, NamedTuple

import tensorflow as tf


class Factors(NamedTuple):
    """Activation and adjoint of one weight over one batch.

    Attributes:
        activation: Tensor `[n, s, i]`, what the layer multiplied by its weight.
        adjoint: Tensor `[n, s, o]`, `∂L/∂Z` of the loss exactly as it was reduced.
        example_gradients: Tensor `[n, i, o]` of per-example gradients from a tape, or `None` to
            form gradients as products of the two factors.
    """

    activation: Any
    adjoint: Any
    example_gradients: Any = None

    @property
    def widths(self):
        """The static pair `(i, o)`."""
        return int(self.activation.shape[-1]), int(self.adjoint.shape[-1])

    @property
    def positions(self):
        """Static number of shared positions `s`, or `None` if it is only known at run time."""
        return self.activation.shape[1]


def joined_calls(calls):
    """Return the factors of a layer that was called several times: the rows of all its calls.

    Args:
        calls: List of `Factors` of one weight, with equal `n`, `i`, `o`.

    Returns:
        One `Factors` whose positions are those of all calls, one after the other.
    """
    if len(calls) == 1:
        return calls[0]
    return Factors(
        tf.concat([call.activation for call in calls], axis=1),
        tf.concat([call.adjoint for call in calls], axis=1),
        None
        if calls[0].example_gradients is None
        else tf.add_n([call.example_gradients for call in calls]),
    )


def with_positions(tensor, n):
    """Return a tensor `[n, …, w]` as `[n, s, w]`, all middle axes flattened into `s`.

    Args:
        tensor: Tensor of rank at least 2, whose leading axis is the example.
        n: Scalar integer tensor, the number of examples.

    Returns:
        Tensor `[n, s, w]`.
    """
    if tensor.shape.rank == 2:
        return tf.expand_dims(tensor, 1)
    middle, width = tensor.shape[1:-1], tensor.shape[-1]
    positions = -1 if None in middle else math.prod(middle)
    return tf.reshape(tensor, tf.stack([n, positions, width]))
