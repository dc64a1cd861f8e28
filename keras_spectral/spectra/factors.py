"""The normal form of a layer call, declared once.

Letters: `n` example, `s` shared position, `i` input feature, `o` output feature, `g` group,
`r` row (a pair `(n, s)`).

Every covered layer is brought to `Z = A W + b` with `A [n, s, i]`, `W [i, o]`. Its adjoint is
`Δ = ∂L/∂Z [n, s, o]`, and the gradient of the training loss is `G = AᵀΔ`, rows flattened.
"""

import itertools
import math
from typing import Any, NamedTuple

import tensorflow as tf

from keras_spectral.settings import QUANTITIES

FACTORS = ("activation", "adjoint")


class Factors(NamedTuple):
    """Activation and adjoint of one weight over one batch, and how its gradient comes about.

    Attributes:
        activation: Tensor `[n, s, i]`, what the layer multiplied by its weight, or a matrix that is
            never formed (`Patches`, `Tokens`) or made of parts (`SideBySide`); of a layer that is
            no product, its input.
        adjoint: Tensor `[n, s, o]` or `Patches`, `∂L/∂Z` of the loss exactly as it was reduced; of
            a layer that is no product `∂L/∂output`, whose positions may be others than those of its
            input.
        example_gradients: Tensor `[n, i, o]` of per-example gradients, from a tape or where they
            are vectors, or `None`.
        group_gradients: Tensor `[1 + g, …, …]`, the gradient of the weight as a matrix, through the
            whole batch and through each group, of a layer that is no product. Else `None`, and
            gradients are products of the two factors (or sums over examples).

    Of a weight that is no product, activation and adjoint may be `None`, and are not recorded then.
    """

    activation: Any
    adjoint: Any
    example_gradients: Any = None
    group_gradients: Any = None

    @property
    def recorded(self):
        """The quantities there are."""
        there = self.activation is not None, self.adjoint is not None, True
        return tuple(itertools.compress(QUANTITIES, there))

    @property
    def is_product(self):
        """Whether gradients are `AᵀΔ`, all columns of it from the same rows of both factors."""
        return self.bounded_by_rows and self.example_gradients is None

    @property
    def bounded_by_rows(self):
        """Whether the gradient is a sum over rows of matrices of rank one."""
        return self.group_gradients is None and getattr(self.activation, "blocks", 1) == 1

    def adds_up(self, quantity):
        """Tell whether the part of a group is the sum of those of its examples.

        Args:
            quantity: One of `QUANTITIES`.

        Returns:
            `False` for gradients that exist per group only, or whose rows depend on who is there.
        """
        if quantity != "gradient":
            return True
        return self.group_gradients is None and not hasattr(self.activation, "spectra")

    def width(self, quantity):
        """Return the largest number of singular values that the features allow.

        Args:
            quantity: One of `QUANTITIES`.
        """
        if quantity == "gradient":
            return min(self.gradient_shape)
        return _width(getattr(self, quantity))

    @property
    def gradient_shape(self):
        """The static shape of a gradient as a matrix."""
        for known in (self.group_gradients, self.example_gradients):
            if known is not None:
                return tuple(known.shape[-2:])
        a, d = self.activation, self.adjoint
        if not is_formed(a):
            return a.gradient_shape(_width(d))
        return (_width(a), _width(d)) if is_formed(d) else d.gradient_shape(_width(a))[::-1]

    def positions(self, quantity):
        """Return the number of positions `s`, as an integer if it is static, else a scalar tensor.

        Args:
            quantity: One of `QUANTITIES`; a gradient is said to have those of the adjoint.
        """
        part = self.activation if quantity == "activation" else self.adjoint
        if part is None:
            return 1
        if not is_formed(part):
            return part.positions
        return tf.shape(part)[1] if part.shape[1] is None else part.shape[1]


def is_formed(part):
    """Tell whether an activation or adjoint is a tensor `[n, s, w]`.

    Args:
        part: Activation or adjoint of `Factors`.

    Returns:
        `False` for a matrix that is not formed.
    """
    return tf.is_tensor(part)


def rows_of(part):
    """Return an activation or adjoint as a tensor.

    Args:
        part: Activation or adjoint of `Factors`.

    Returns:
        Tensor `[n, s, w]`.
    """
    return part if is_formed(part) else part.rows()


def _width(part):
    return int(part.shape[-1]) if is_formed(part) else part.width


def joined_calls(calls):
    """Return the factors of a layer that was called several times: the rows of all its calls.

    Args:
        calls: List of `Factors` of one weight, with equal `n`, `i`, `o`, of the same kind.

    Returns:
        One `Factors` whose positions are those of all calls, one after the other.
    """
    if len(calls) == 1:
        return calls[0]
    return Factors(
        _joined([call.activation for call in calls]),
        _joined([call.adjoint for call in calls]),
        None
        if calls[0].example_gradients is None
        else tf.add_n([call.example_gradients for call in calls]),
    )


def _joined(parts):
    first, *others = parts
    return tf.concat(parts, axis=1) if is_formed(first) else first.joined(others)


def in_rows(part, n):
    """Return an activation or adjoint as `Factors` takes it.

    Args:
        part: Tensor `[n, …, w]`, or a matrix that is not formed.
        n: Scalar integer tensor, the number of examples.

    Returns:
        Tensor `[n, s, w]`, or the matrix as it is.
    """
    return with_positions(part, n) if is_formed(part) else part


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
