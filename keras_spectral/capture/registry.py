"""Which layer families are known, and which rule captures a given layer."""

from keras_spectral.capture.dense import DenseRule
from keras_spectral.capture.einsum_dense import EinsumDenseRule

RULES = (DenseRule(), EinsumDenseRule())
"""All rules. A new layer family is one file and one entry here."""


def rule_for(layer):
    """Return the rule that captures a layer.

    Args:
        layer: A Keras layer.

    Returns:
        The rule whose `layer_type` supplies the layer's `call`, or `None`. A subclass with a
        `call` of its own is not captured by its parent's rule: it may compute anything.
    """
    for rule in RULES:
        if isinstance(layer, rule.layer_type) and type(layer).call is rule.layer_type.call:
            return rule
    return None
