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

    def adjoint(self, layer, delta) -> Any:
        """Return `Δ`, shape `[n, …, o]`, rows as in `A`, from `∂L/∂Z` in the shape of `Z`."""

    def matrices(self, layer, gradients) -> Any:
        """Return gradients of the weight, shape `[n, *weight.shape]`, as matrices `[n, i, o]`."""

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


class ActivatedKernelRule:
    """What rules of layers of the form `activation(Z)`, Z linear in a `kernel`, have in common.

    Such a layer is watched by listening to what its activation receives. Keras' own code computes
    everything, so numbers stay bit for bit what they are without us.
    """

    weight = "kernel"

    def obstacle(self, layer):
        """Return why this very layer cannot be captured, or `None`."""
        if layer.quantization_mode is not None:
            return f"quantised weights ({layer.quantization_mode}) have no gradient"
        if layer.lora_enabled:
            return "LoRA: the kernel is frozen, its low-rank update is not captured yet"
        return None

    def watched(self, layer, calls):
        """Return a context in which every call of the layer is appended to `calls`."""
        return _watched_activation(layer, calls)

    def pre_activation(self, layer, inputs):
        """Return `Z` computed afresh by Keras' own code."""
        calls = []
        with _watched_activation(layer, calls):
            layer.call(inputs)  # not `layer(inputs)`, which would add activity losses again
        return calls[0].pre_activation


@contextmanager
def _watched_activation(layer, calls):
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
