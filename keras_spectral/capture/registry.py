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
from keras_spectral.capture.normalization import NormalizationRule
from keras_spectral.capture.recurrent import RecurrentRule
from keras_spectral.capture.registered import RegisteredRule, require_layer_class

RULES = (
    DenseRule(),
    EinsumDenseRule(),
    ConvolutionRule(),
    TransposedConvolutionRule(),
    DepthwiseConvolutionRule(),
    SeparableConvolutionRule(),
    RecurrentRule(),
    EmbeddingRule(),
    NormalizationRule(),
)
"""All families. A new one is one file and its entries here."""

ANY_LAYER = GenericRule()

UNUSED = {
    *("__init__", "__new__", "__doc__", "__module__", "__init_subclass__", "__repr__", "__str__"),
    *("__annotations__", "__static_attributes__", "__firstlineno__", "__abstractmethods__"),
    *("_abc_impl", "__parameters__", "__orig_bases__", "__reduce__", "__dict__", "__weakref__"),
    *("build", "build_from_config", "get_build_config", "get_config", "from_config"),
    *(
        "compute_mask",
        "compute_output_shape",
        "compute_output_spec",
        "save_own_variables",
        "load_own_variables",
    ),
    *("add_weight", "get_quantization_layer_structure", "count_params"),
}
"""What a subclass may change of a layer of Keras without changing what its `call` computes."""

REGISTERED = {}
"""The rules of the user's own, by class of layer."""


def register_layer(layer_class, *, activation=None):
    """Return a decorator by which a function says what A and Δ of a layer of one's own are.

    The function `f(layer, inputs, adjoint)` receives the first argument of the layer's call, and
    `∂L/∂output`. It returns `{weight name: (A, Δ)}` with A `[n, …, i]` and Δ `[n, …, o]`, so that
    `AᵀΔ`, all rows `(n, …)` together, is the gradient of the weight, reshaped to `[i, o]`. A weight
    goes by the name of its variable or of the layer's attribute, and in the log by the former;
    weights left out are not recorded. `check_layer` holds the function against plain
    differentiation.

    Args:
        layer_class: Class of Keras layers; subclasses that keep its `call` are covered. The
            function takes the place of what the package knows of the class, and of any function
            registered before.
        activation: Name of the layer's attribute that holds the function applied to Z last. The
            adjoint is then `∂L/∂Z`. `None` if the layer applies none, or if the function takes care
            of it; then the layer must return one tensor.

    Returns:
        A decorator that returns the function as it is.

    Raises:
        LayerRuleError: If `layer_class` is no class of layers, or the function is none.

    Example:
        >>> import keras
        >>> class Scaled(keras.layers.Layer):
        ...     def build(self, shape):
        ...         self.w = self.add_weight(shape=(shape[-1], 2), name="w")
        ...
        ...     def call(self, inputs):
        ...         return 3 * keras.ops.matmul(inputs, self.w)
        >>> @register_layer(Scaled)
        ... def scaled_factors(layer, inputs, adjoint):
        ...     return {"w": (inputs, 3 * adjoint)}
    """

    def registered(function):
        REGISTERED[layer_class] = RegisteredRule(layer_class, function, activation)
        return function

    require_layer_class(layer_class)
    return registered


def rule_for(layer, around=()):
    """Return the rule that captures a layer, and the layer to watch for it.

    Args:
        layer: A Keras layer.
        around: Tuple of the layers around it, the nearest first.

    Returns:
        The rule one of whose `layer_types` supplies the layer's `call`, first the user's own ones,
        unless something in the layer is in its way or there is nothing to watch; else the generic
        one. A subclass with a `call` of its own is not captured by its parent's rule: it may
        compute anything. Nor is one of Keras' layers that changes what `call` may use.
    """
    for rule in (*_registered(layer), *RULES):
        if any(not _changed(layer, parent, rule) for parent in _parents(layer, rule)):
            host = None if rule.obstacle(layer) else rule.host(layer, around)
            if host is not None:
                return rule, host
    return ANY_LAYER, layer


def stepped_aside(layer, around=()):
    """Return why the family of a layer leaves it to the generic rule.

    Args:
        layer: A Keras layer.
        around: Tuple of the layers around it, the nearest first.

    Returns:
        A text; "" if its family captures it, or it is of none.
    """
    for rule in (*_registered(layer), *RULES):
        parents = _parents(layer, rule)
        if parents and all(_changed(layer, parent, rule) for parent in parents):
            changed = _changed(layer, parents[0], rule)
            return f"a `{changed[0]}` of its own, not that of {parents[0].__name__}"
        if parents:
            return rule.obstacle(layer) or rule.hostless(layer, around) or ""
    return ""


def _registered(layer):
    return [REGISTERED[parent] for parent in type(layer).__mro__ if parent in REGISTERED]


def _parents(layer, rule):
    return [parent for parent in rule.layer_types if isinstance(layer, parent)]


def _changed(layer, parent, rule):
    """Return the names of what a layer computes in another way than its parent, `call` first."""
    own = type(layer)
    if own.call is not parent.call:
        return ["call"]
    if isinstance(rule, RegisteredRule):
        return []
    between = own.__mro__[: own.__mro__.index(parent)]
    return sorted({name for c in between for name in vars(c) if hasattr(parent, name)} - UNUSED)
