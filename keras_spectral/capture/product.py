"""Layers whose weights enter as products: `Z = A W + b`.

Letters: `n` example, `i` input feature, `o` output feature.
"""

from contextlib import contextmanager
from typing import Any

from keras_spectral.capture.calls import Call, unscaled
from keras_spectral.capture.keras_layers import attributes
from keras_spectral.capture.rule import Rule
from keras_spectral.matrices.factors import Factors, in_rows, joined_calls


class ProductRule(Rule):
    """Base class of rules for layers whose weights enter as products: `Z = A W + b`.

    A family returns A and Δ from `normal_form`. The layer is watched by storing the argument of its
    activation function, Z. Keras' own code computes everything, so all numbers are bit for bit
    those of an unwatched layer.
    """

    weight_names: tuple = ("kernel",)

    def normal_form(self, layer, inputs, delta) -> Any:
        """Return `{weight name: (A, Δ)}` of one call.

        Args:
            layer: The layer.
            inputs: What it received.
            delta: `∂L/∂Z`, in the shape of Z.

        Returns:
            Tensors `[n, …, i]` and `[n, …, o]`, or matrices that `Factors` accepts instead.
        """
        raise NotImplementedError

    def obstacle(self, layer):
        """Return why this layer cannot be captured by the rule, or `None`."""
        if layer.quantization_mode is not None:
            return f"quantised weights ({layer.quantization_mode}), in a `call` of their own"
        if getattr(layer, "lora_enabled", False):
            return "LoRA: the kernel is frozen"
        return None

    def weights(self, layer):
        """Return the captured weights, by name."""
        return [(name, getattr(layer, name)) for name in self.weight_names]

    def factors(self, layer, calls, adjoints, backward):
        """Return A and Δ of every weight."""
        found = {name: [] for name in self.weight_names}
        for call, (delta,) in zip(calls, adjoints, strict=True):
            delta = unscaled(delta, backward.scale)
            for name, pair in self.normal_form(layer, call.inputs, delta).items():
                a, d = (in_rows(part, backward.n) for part in pair)
                found[name].append(Factors(a, d))
        return {name: joined_calls(parts) for name, parts in found.items()}

    @contextmanager
    def watched(self, layer, calls, watch=None):
        """Return a context in which every call of the layer is appended to `calls`."""
        call, activation = layer.call, layer.activation
        received = []

        def listening_activation(z):
            received.append(z)
            return z if activation is None else activation(z)

        def listening_call(inputs, *args, **kwargs):
            received.clear()
            outputs = call(inputs, *args, **kwargs)
            calls.append(Call(inputs, (received[0],)))
            return outputs

        with attributes(layer, call=listening_call, activation=listening_activation):
            yield
