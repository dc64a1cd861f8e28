"""The interface of a layer family: what are A and Δ of this layer?

Letters: `n` example, `s` shared position, `i` input feature, `o` output feature.
"""

import math
from typing import Any, NamedTuple

import tensorflow as tf


class InWords(NamedTuple):
    """A description of what a rule captures of one weight, for `docs/layers.md`.

    Attributes:
        weight: Name of the weight.
        a: What A is.
        delta: What Δ is.
        gradient: Shape of the matrix G.
    """

    weight: str
    a: str
    delta: str
    gradient: str


class Rule:
    """How one layer family is captured. One file per family derives from it.

    A family must define `layer_types`, `weights`, `watched` and `factors`; the defaults of the
    other members fit most families.
    """

    layer_types: tuple = ()
    """Keras classes that the rule captures, with those subclasses that do not override `call`."""

    in_words: tuple[InWords, ...] = ()
    """Descriptions of A and Δ, for `docs/layers.md`."""

    left_to_generic: tuple[str, ...] = ()
    """Descriptions of options with which the generic rule captures a layer of the family."""

    def obstacle(self, layer) -> str | None:
        """Return why a layer cannot be captured by this rule, or `None`.

        Args:
            layer: The layer.
        """
        del layer
        return None

    def host(self, layer, around) -> Any:
        """Return the layer whose calls are watched, or `None` if there is none.

        Args:
            layer: The layer that has the weights.
            around: Tuple of the layers around it, the nearest first.
        """
        del around
        return layer

    def hostless(self, layer, around) -> str | None:
        """Return why `host` returns `None`, or `None` if it does not.

        Args:
            layer: As in `host`.
            around: As in `host`.
        """
        del layer, around
        return None

    def weights(self, layer) -> Any:
        """Return the captured weights, as pairs `(name, variable)`.

        Args:
            layer: The layer.
        """
        raise NotImplementedError

    def watched(self, layer, calls, watch) -> Any:
        """Return a context in which every call of a host is appended to `calls`.

        Args:
            layer: The host.
            calls: List of `Call`.
            watch: `tape.watch`, for tensors that depend on no weight.
        """
        raise NotImplementedError

    def factors(self, layer, calls, adjoints, backward) -> Any:
        """Return `{weight name: Factors}`, with the rows of all calls of the layer.

        Args:
            layer: The layer.
            calls: List of `Call`.
            adjoints: For each call a list of `∂L/∂output`, in the shapes of its outputs; `None` for
                an output that no gradient reaches, but never for all outputs of a call.
            backward: `Backward`.
        """
        raise NotImplementedError

    def matrices(self, layer, name, gradients) -> Any:
        """Return gradients `[n, …]` of a weight as matrices `[n, i, o]`.

        By default the columns are the last axis of the weight, all others are flattened.

        Args:
            layer: The layer.
            name: Name of the weight.
            gradients: Tensor `[n, …]`.
        """
        del layer, name
        *rows, columns = gradients.shape[1:] if gradients.shape.rank > 1 else (1,)
        return tf.reshape(gradients, [tf.shape(gradients)[0], math.prod(rows), columns])
