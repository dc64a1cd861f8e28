"""Dense layers: `Z = A W + b` on the last axis.

A is the input `[n, …, i]` and Δ is `∂L/∂Z [n, …, o]`, all axes between being shared positions, so
`G = AᵀΔ` is the gradient of the kernel `[i, o]`.
"""

import keras

from keras_spectral.capture.rule import watched_activation


class DenseRule:
    """Captures `keras.layers.Dense`, with any activation and any number of input axes."""

    layer_type = keras.layers.Dense
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
        return watched_activation(layer, calls)

    def activation(self, layer, inputs):
        """Return `A`, which is the input itself."""
        return inputs

    def pre_activation(self, layer, inputs):
        """Return `Z` computed afresh by Keras' own code."""
        calls = []
        with watched_activation(layer, calls):
            layer.call(inputs)  # not `layer(inputs)`, which would add activity losses again
        return calls[0].pre_activation
