"""Which layer families are known, and which rule captures a given layer."""

from keras_spectral.capture.convolution import (
    ConvolutionRule,
    DepthwiseConvolutionRule,
    SeparableConvolutionRule,
    TransposedConvolutionRule,
)
from keras_spectral.capture.dense import DenseRule
from keras_spectral.capture.einsum_dense import EinsumDenseRule
from keras_spectral.capture.embedding import EmbeddingRule
from keras_spectral.capture.generic import GenericRule
from keras_spectral.capture.recurrent import RecurrentRule

RULES = (
    DenseRule(),
    EinsumDenseRule(),
    ConvolutionRule(),
    TransposedConvolutionRule(),
    DepthwiseConvolutionRule(),
    SeparableConvolutionRule(),
    RecurrentRule(),
    EmbeddingRule(),
)
"""All families. A new one is one file and its entries here."""

ANY_LAYER = GenericRule()


def rule_for(layer, around=()):
    """Return the rule that captures a layer, and the layer to watch for it.

    Args:
        layer: A Keras layer.
        around: Tuple of the layers around it, the nearest first.

    Returns:
        The rule one of whose `layer_types` supplies the layer's `call`, unless something in the
        layer is in its way or there is nothing to watch; else the generic one. A subclass with a
        `call` of its own is not captured by its parent's rule: it may compute anything.
    """
    for rule in RULES:
        if any(_keeps_call(layer, parent) for parent in rule.layer_types):
            host = None if rule.obstacle(layer) else rule.host(layer, around)
            if host is not None:
                return rule, host
    return ANY_LAYER, layer


def _keeps_call(layer, parent):
    return isinstance(layer, parent) and type(layer).call is parent.call
