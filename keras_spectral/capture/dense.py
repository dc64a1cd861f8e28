"""Dense layers: `Z = A W + b` on the last axis.

A is the input `[n, …, i]` and Δ is `∂L/∂Z [n, …, o]`, all axes between being shared positions, so
`G = AᵀΔ` is the gradient of the kernel `[i, o]`.
"""

import keras

from keras_spectral.capture.product import ProductRule
from keras_spectral.capture.rule import InWords


class DenseRule(ProductRule):
    """Captures `keras.layers.Dense`, with any activation and any number of input axes."""

    layer_types = (keras.layers.Dense,)
    in_words = (InWords("kernel", "the input `[n, …, i]`", "`∂L/∂Z [n, …, o]`", "`[i, o]`"),)
    left_to_generic = ("LoRA", "quantised weights")

    def normal_form(self, layer, inputs, delta):
        """Return the input itself, and `∂L/∂Z` itself."""
        return {"kernel": (inputs, delta)}
