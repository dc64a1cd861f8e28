"""What a layer family has to answer: what are A and Δ of this layer?

Letters: `n` example, `s` shared position, `i` input feature, `o` output feature.
"""

import math
from typing import Any, NamedTuple

import tensorflow as tf


class InWords(NamedTuple):
    """What a rule answers for one weight, in words, for `docs/layers.md`.

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

    A family must say `layer_types`, `weights`, `watched` and `factors`; of the rest these are the
    answers of most.
    """

    layer_types: tuple = ()
    """Keras classes whose `call` the rule knows; subclasses that keep that `call` are covered."""

    in_words: tuple[InWords, ...] = ()
    """What A and Δ are, for `docs/layers.md`."""

    left_to_generic: tuple[str, ...] = ()
    """Options with which a layer of the family goes to the generic rule, in words."""

    def obstacle(self, layer) -> str | None:
        """Return why this very layer cannot be captured, or `None`.

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
        """Return why `host` finds none, or `None` if it does.

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
            watch: Function by which the tape watches a tensor that depends on no weight.
        """
        raise NotImplementedError

    def factors(self, layer, calls, adjoints, backward) -> Any:
        """Return `{weight name: Factors}`, all rows of all calls of the layer together.

        Args:
            layer: The layer.
            calls: List of `Call`.
            adjoints: For each call a list of `∂L/∂output`, in the shapes of its outputs; `None` for
                an output that no gradient reaches, though not for all of one call.
            backward: `Backward`.
        """
        raise NotImplementedError

    def matrices(self, layer, name, gradients) -> Any:
        """Return gradients of a weight `[n, …]` as matrices `[n, i, o]`, by default its last axis.

        Args:
            layer: The layer.
            name: Name of the weight.
            gradients: Tensor `[n, …]`.
        """
        del layer, name
        *rows, columns = gradients.shape[1:] if gradients.shape.rank > 1 else (1,)
        return tf.reshape(gradients, [tf.shape(gradients)[0], math.prod(rows), columns])
