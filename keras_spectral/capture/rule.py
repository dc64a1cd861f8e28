"""What a layer family has to answer: what are A and Δ of this layer?

Letters: `n` example, `s` shared position, `i` input feature, `o` output feature.
"""

from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Call:
    """One call of a layer in the forward pass.

    Attributes:
        inputs: Tensor, what the layer received (after casting to its compute type).
        pre_activation: Tensor, `Z`, to which the activation function is applied.
    """

    inputs: Any
    pre_activation: Any


class Rule(Protocol):
    """How one layer family is captured. One file per family implements it."""

    layer_type: type
    """Keras class whose `call` the rule knows; subclasses that keep that `call` are covered."""

    weight: str
    """Name of the weight whose gradient is `AᵀΔ`, the attribute that holds its variable."""

    def obstacle(self, layer) -> str | None:
        """Return why this very layer cannot be captured, or `None`."""

    def watched(self, layer, calls: list[Call]):
        """Return a context in which every call of the layer is appended to `calls`."""

    def activation(self, layer, inputs) -> Any:
        """Return `A`, shape `[n, …, i]`, from the inputs of a call."""

    def pre_activation(self, layer, inputs) -> Any:
        """Return `Z` computed afresh from the inputs of a call, for differentiation by a tape."""


@contextmanager
def attributes(layer, **values):
    """Set instance attributes of a layer for a while, and leave no trace, whatever happens.

    Works on the instance dictionary: Keras neither tracks nor locks what is put there.

    Args:
        layer: The layer.
        **values: Attribute values.

    Yields:
        Nothing.
    """
    before = {name: layer.__dict__[name] for name in values if name in layer.__dict__}
    layer.__dict__.update(values)
    try:
        yield
    finally:
        for name in values:
            layer.__dict__.pop(name, None)
        layer.__dict__.update(before)


@contextmanager
def watched_activation(layer, calls):
    """Watch a layer of the form `activation(Z)` by listening to what its activation receives.

    Keras' own code computes everything, so numbers stay bit for bit what they are without us.

    Args:
        layer: Layer with an attribute `activation`.
        calls: List to which each `Call` is appended.

    Yields:
        Nothing.
    """
    call, activation = layer.call, layer.activation
    received = []

    def listening_activation(z):
        received.append(z)
        return z if activation is None else activation(z)

    def listening_call(inputs, *args, **kwargs):
        received.clear()
        outputs = call(inputs, *args, **kwargs)
        calls.append(Call(inputs, received[0]))
        return outputs

    with attributes(layer, call=listening_call, activation=listening_activation):
        yield
