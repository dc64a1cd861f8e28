"""Dense layers: `Z = A W + b` on the last axis.

A is the input `[n, …, i]` and Δ is `∂L/∂Z [n, …, o]`, all axes between being shared positions, so
`G = AᵀΔ` is the gradient of the kernel `[i, o]`.
"""

import keras

from keras_spectral.capture.rule import ActivatedKernelRule


class DenseRule(ActivatedKernelRule):
    """Captures `keras.layers.Dense`, with any activation and any number of input axes."""

    layer_type = keras.layers.Dense

    def activation(self, layer, inputs):
        """Return `A`, which is the input itself."""
        return inputs

    def adjoint(self, layer, delta):
        """Return `Δ`, which is `∂L/∂Z` itself."""
        return delta

    def matrices(self, layer, gradients):
        """Return gradients of the kernel, which are matrices already."""
        return gradients
