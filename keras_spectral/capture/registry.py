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
"""The rules of all families. A new family is one file and an entry here."""

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
"""Members that a subclass of a Keras layer may override without changing what `call` computes."""

REGISTERED = {}
"""The rules that the user registered, by layer class."""


def register_layer(layer_class, *, activation=None):
    """Return a decorator that registers a function which returns A and Δ of a layer of your own.

    The function `f(layer, inputs, adjoint)` receives the first argument of the layer's call, and
    `∂L/∂output`. It returns `{weight name: (A, Δ)}` with A `[n, …, i]` and Δ `[n, …, o]`, so that
    `AᵀΔ`, summed over all rows `(n, …)`, is the gradient of the weight, reshaped to `[i, o]`. A
    weight is named by its variable or by the layer's attribute, in the log by its variable; weights
    that are not returned are not recorded. `check_layer` compares the function with plain
    differentiation.

    Args:
        layer_class: Class of Keras layers; subclasses that do not override `call` are covered. The
            function replaces the library's rule for the class and any function registered before.
        activation: Name of the layer's attribute that holds the activation function, which is
            applied to Z last. The adjoint is then `∂L/∂Z`. `None` if the layer applies none, or if
            the registered function multiplies by its derivative; the layer must then return one
            tensor.

    Returns:
        A decorator that returns the function unchanged.

    Raises:
        LayerRuleError: If `layer_class` is not a class of layers, or the decorated object not a
            function of three arguments.

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
        `(rule, layer to watch)`: the rule with the class that defines the layer's `call` among its
        `layer_types`, registered rules first; the generic rule if there is none, if the rule has an
        obstacle, or if it finds no layer to watch. A subclass that overrides `call` is not captured
        by the rule of its parent, since it may compute anything; nor is a subclass of a Keras layer
        that overrides something `call` may use.
    """
    for rule in (*_registered(layer), *RULES):
        if any(not _changed(layer, parent, rule) for parent in _parents(layer, rule)):
            host = None if rule.obstacle(layer) else rule.host(layer, around)
            if host is not None:
                return rule, host
    return ANY_LAYER, layer


def stepped_aside(layer, around=()):
    """Return why a layer of a known family is captured by the generic rule.

    Args:
        layer: A Keras layer.
        around: Tuple of the layers around it, the nearest first.

    Returns:
        A text; "" if the rule of its family captures it, or it belongs to no family.
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
    """Return the names of members that a layer overrides and `call` may use, `call` first."""
    own = type(layer)
    if own.call is not parent.call:
        return ["call"]
    if isinstance(rule, RegisteredRule):
        return []
    between = own.__mro__[: own.__mro__.index(parent)]
    return sorted({name for c in between for name in vars(c) if hasattr(parent, name)} - UNUSED)
