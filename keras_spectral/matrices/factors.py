"""The normal form of a layer call.

Letters: `n` example, `s` shared position, `i` input feature, `o` output feature, `g` group,
`r` row (a pair `(n, s)`).

Every covered layer is brought to `Z = A W + b` with `A [n, s, i]`, `W [i, o]`. Its adjoint is
`Δ = ∂L/∂Z [n, s, o]`, and the gradient of the training loss is `G = AᵀΔ`, rows flattened.
"""

import itertools
import math
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from keras_spectral.matrices.base import Rows, array, taken
from keras_spectral.settings import QUANTITIES

FACTORS = ("activation", "adjoint")


class Factors(NamedTuple):
    """Activation and adjoint of one weight in one step, and its gradients where not their product.

    Attributes:
        activation: Tensor `[n, s, i]`, what the layer multiplied by its weight; or a matrix that is
            never materialised (`Patches`, `OneHot`) or consists of parts (`Gates`). For a layer
            that is not a product, its input.
        adjoint: Tensor `[n, s, o]` or `Patches`, `∂L/∂Z` of the loss exactly as it was reduced. For
            a layer that is not a product, `∂L/∂output`, whose positions may differ from those of
            the input.
        example_gradients: Tensor `[n, i, o]` of per-example gradients, by differentiation or for
            weights that are vectors, or `None`.
        group_gradients: Tensor `[g, i, o]`, the gradient through the whole batch and through each
            group, for a layer that is not a product. Otherwise `None`, and gradients are products
            of the two factors, or sums of `example_gradients`.

    For a layer that is not a product, activation and adjoint may be `None`; they are not recorded
    then.
    """

    activation: Any
    adjoint: Any
    example_gradients: Any = None
    group_gradients: Any = None

    @property
    def recorded(self):
        """The quantities that are not `None`."""
        there = self.activation is not None, self.adjoint is not None, True
        return tuple(itertools.compress(QUANTITIES, there))

    def on_host(self):
        """Return these factors with tensors in host memory as NumPy arrays, without a copy."""
        return Factors(*(array(part) if isinstance(part, tf.Tensor) else part for part in self))

    @property
    def nbytes(self):
        """Bytes of all parts."""
        return sum(_nbytes(part) for part in self)


class WeightMatrices:
    """The matrices of one weight in one recorded step, on the host.

    Args:
        factors: `Factors` of eager tensors.
    """

    def __init__(self, factors):
        self._factors = factors
        self.recorded = factors.recorded

    @cached_property
    def activation(self):
        """`Matrix` of the activation."""
        return as_matrix(self._factors.activation)

    @cached_property
    def adjoint(self):
        """`Matrix` of the adjoint."""
        return as_matrix(self._factors.adjoint)

    @property
    def is_product(self):
        """Whether the gradient is `AᵀΔ` with all rows and columns of both factors."""
        return self.bounded_by_rows and self._factors.example_gradients is None

    @property
    def bounded_by_rows(self):
        """Whether the gradient is a sum over rows of matrices of rank one."""
        if self._factors.group_gradients is not None:
            return False
        return self._factors.activation is None or self.activation.n_blocks == 1

    @cached_property
    def gradient_shape(self):
        """The shape of a gradient as a matrix."""
        for known in (self._factors.group_gradients, self._factors.example_gradients):
            if known is not None:
                return tuple(known.shape[-2:])
        if isinstance(self.adjoint, Rows):
            return self.activation.gradient_shape(self.adjoint.width)
        return self.adjoint.gradient_shape(self.activation.width)[::-1]

    @property
    def device(self):
        """Name of the device of the tensors, such as `"CPU:0"`."""
        leaves = [
            x for x in tf.nest.flatten(self._factors, expand_composites=True) if x is not None
        ]
        return ":".join(leaves[0].device.split(":")[-2:]) if tf.is_tensor(leaves[0]) else "CPU:0"

    @property
    def is_float64(self):
        """Whether any of the tensors is float64."""
        leaves = tf.nest.flatten(list(self._factors), expand_composites=True)
        return any(leaf is not None and leaf.dtype == np.float64 for leaf in leaves)

    def width(self, quantity):
        """Return the largest number of singular values that the features allow.

        Args:
            quantity: One of `QUANTITIES`.
        """
        return min(self.gradient_shape) if quantity == "gradient" else self.of(quantity).width

    def positions(self, quantity):
        """Return the number of positions `s`.

        Args:
            quantity: One of `QUANTITIES`; for a gradient, the positions of the adjoint.
        """
        name = "activation" if quantity == "activation" else "adjoint"
        return self.of(name).positions if name in self.recorded else 1

    def of(self, name):
        """Return the `Matrix` of a factor.

        Args:
            name: `"activation"` or `"adjoint"`.
        """
        return self.activation if name == "activation" else self.adjoint

    def adds_up(self, quantity):
        """Return whether the matrix of a group is the sum of those of its examples.

        Args:
            quantity: One of `QUANTITIES`.
        """
        if quantity != "gradient" or self._factors.example_gradients is not None:
            return True
        return self._factors.group_gradients is None and self.activation.adds_up

    def gradient(self, members, g):
        """Return the gradient through a group.

        Args:
            members: `Members`.
            g: Number of the group, 0 for the whole batch; it has at least one example.

        Returns:
            float64 array `[i, o]`; zero rows may be left out.
        """
        return self._gradient(members.examples(g), g)

    def gradient_of_example(self, n):
        """Return the gradient through one example.

        Args:
            n: Its number.

        Returns:
            float64 array `[i, o]`.
        """
        return self._gradient(np.array([n]), None)

    def _gradient(self, examples, g):
        known, each = self._factors.group_gradients, self._factors.example_gradients
        if known is not None:
            return np.asarray(array(known)[g], dtype=float)
        if each is not None:
            return np.asarray(taken(array(each), examples), dtype=float).sum(axis=0)
        if isinstance(self.adjoint, Rows):
            return np.asarray(self.activation.product(self.adjoint, examples))
        return np.asarray(self.adjoint.product(self.activation, examples)).T


def as_matrix(part):
    """Return an activation or adjoint as a `Matrix`.

    Args:
        part: A member of `Factors`: a tensor `[n, s, w]`, or a `Matrix`.
    """
    return Rows(part) if isinstance(part, np.ndarray | tf.Tensor) else part


def _nbytes(part):
    if part is None or isinstance(part, np.ndarray):
        return 0 if part is None else part.nbytes
    leaves = tf.nest.flatten(part, expand_composites=True)
    return sum(x.dtype.size * math.prod(x.shape) for x in leaves)


def joined_calls(calls):
    """Return the factors of a layer that was called several times, with the rows of all calls.

    Args:
        calls: List of `Factors` of one weight, with equal `n`, `i`, `o` and types.

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
    return tf.concat(parts, axis=1) if tf.is_tensor(first) else first.joined(others)


def in_rows(part, n):
    """Return an activation or adjoint in the form that `Factors` requires.

    Args:
        part: Tensor `[n, …, w]`, or a matrix that is not materialised.
        n: Scalar integer tensor, the number of examples.

    Returns:
        Tensor `[n, s, w]`, or the matrix as it is.
    """
    return with_positions(part, n) if tf.is_tensor(part) else part


def with_positions(tensor, n):
    """Return a tensor `[n, …, w]` as `[n, s, w]`, with all middle axes flattened into `s`.

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
