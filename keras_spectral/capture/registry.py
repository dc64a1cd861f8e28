"""Which layer families are known, and which rule captures a given layer."""

from keras_spectral.capture.dense import DenseRule
from keras_spectral.capture.einsum_dense import EinsumDenseRule
from keras_spectral.capture.generic import GenericRule

RULES = (DenseRule(), EinsumDenseRule())
"""All families. A new one is one file and one entry here."""

ANY_LAYER = GenericRule()


def rule_for(layer):
    """Return the rule that captures a layer.

    Args:
        layer: A Keras layer.

    Returns:
        The rule whose `layer_type` supplies the layer's `call`, unless something in the layer is in
        its way; else the generic one. A subclass with a `call` of its own is not captured by its
        parent's rule: it may compute anything.
    """
    for rule in RULES:
        of_family = isinstance(layer, rule.layer_type) and type(layer).call is rule.layer_type.call
        if of_family and not rule.obstacle(layer):
            return rule
    return ANY_LAYER
