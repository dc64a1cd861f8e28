"""Layers of the user's own, whose A and Δ a registered function returns.

Letters: `n` example, `i` input feature, `o` output feature.

The function receives the layer, the first argument of its call, and an adjoint: `∂L/∂output`, or
`∂L/∂Z` where an attribute of the layer holds the activation function that is applied to Z last. It
returns `{weight name: (A, Δ)}`, tensors `[n, …, i]` and `[n, …, o]` with equally many positions, so
that `G = AᵀΔ` is the gradient of the weight, reshaped to `[i, o]`.
"""

import inspect
import itertools
import math
import operator
from collections import defaultdict
from collections.abc import Mapping
from contextlib import contextmanager
from weakref import WeakKeyDictionary

import keras
import tensorflow as tf

from keras_spectral.capture.calls import Call, Received, state_of, unscaled
from keras_spectral.capture.keras_layers import attributes, numbered, own_variables
from keras_spectral.capture.product import ProductRule
from keras_spectral.errors import LayerRuleError
from keras_spectral.matrices.factors import Factors, in_rows, joined_calls


class RegisteredRule(ProductRule):
    """Captures a layer by a function of the user's that returns A and Δ.

    Args:
        layer_class: Class of the layer.
        function: Function of the layer, its inputs and the adjoint.
        activation: Name of the attribute that holds the activation function, or `None`.

    Raises:
        LayerRuleError: If one of these is something else.
    """

    def __init__(self, layer_class, function, activation=None):
        _require_function(function)
        _require_attribute_name(activation)
        self.layer_types = (layer_class,)
        self.function = function
        self.activation = activation
        self._shapes = WeakKeyDictionary()  # layer -> {weight name: (i, o)}, after the first call

    def obstacle(self, layer):
        """Return why this layer cannot be captured by the rule, or `None`."""
        return None if self.weights(layer) else "no trainable weights"

    def weights(self, layer):
        """Return the trainable weights that the function names; all, before its first call."""
        own = _own(layer)
        named = self._shapes.get(layer, own)
        return [(name, v) for name, v in own.items() if name in named and v.trainable]

    def normal_form(self, layer, inputs, delta):
        """Return `{weight name: (A, Δ)}` of one call, as the function returns them.

        Args:
            layer: The layer.
            inputs: The first argument of the call, a tensor or a structure.
            delta: The adjoint.

        Raises:
            LayerRuleError: If the function returns anything else, or shapes do not fit.
        """
        returned = self.function(layer, inputs, delta)
        if not isinstance(returned, Mapping) or not returned:
            raise LayerRuleError(
                f"{self} must return a dictionary `{{weight name: (A, Δ)}}`. "
                f"Received: {returned!r}. Try `return {{{next(iter(_own(layer)))!r}: (A, Δ)}}`."
            )
        pairs = {}
        for key, pair in returned.items():
            name = self._name_of(layer, key)
            pairs[name] = self._fitting(name, _own(layer)[name].shape, pair, delta)
        self._shapes[layer] = {name: (a.shape[-1], d.shape[-1]) for name, (a, d) in pairs.items()}
        return {name: pairs[name] for name, _ in self.weights(layer)}

    def matrices(self, layer, name, gradients):
        """Return gradients of a weight `[n, …]` as matrices `[n, i, o]`.

        If the first axes of the weight can form `o` features but not `i`, the weight is transposed.
        """
        i, o = self._shapes[layer][name]
        n, shape = tf.shape(gradients)[0], gradients.shape[1:]
        rows = {1, *itertools.accumulate(shape, operator.mul)}
        if i in rows or o not in rows:
            return tf.reshape(gradients, [n, i, o])
        return tf.linalg.matrix_transpose(tf.reshape(gradients, [n, o, i]))

    def factors(self, layer, calls, adjoints, backward):
        """Return A and Δ of every weight."""
        found = defaultdict(list)
        for call, (delta,) in zip(calls, adjoints, strict=True):
            delta = unscaled(delta, backward.scale)
            pairs = self.normal_form(layer, call.inputs.inputs, delta)
            for name, pair in pairs.items():
                a, d = (in_rows(part, backward.n) for part in pair)
                found[name].append(Factors(a, d))
        return {name: joined_calls(parts) for name, parts in found.items()}

    @contextmanager
    def watched(self, layer, calls, watch=None):
        """Return a context in which every call of the layer is appended to `calls`."""
        call, heard = layer.call, []

        def listening_call(*args, **kwargs):
            heard.clear()
            state = state_of(layer)
            outputs = call(*args, **kwargs)
            output = self._one_tensor(outputs) if self.activation is None else self._last(heard)
            calls.append(Call(Received(args, kwargs, state), (output,)))
            return outputs

        listening = {"call": listening_call}
        if self.activation is not None:
            listening[self.activation] = _listening(self._activation_of(layer), heard)
        with attributes(layer, **listening):
            yield

    def __str__(self):
        name = getattr(self.function, "__name__", repr(self.function))
        return f"The function `{name}` registered for `{self.layer_types[0].__name__}`"

    def _name_of(self, layer, key):
        """Return the name of the variable with a given name or attribute name."""
        own = _own(layer)
        held = getattr(layer, key, None) if isinstance(key, str) else None
        for name, variable in own.items():
            if name == key or (variable is held and key not in own):
                return name
        raise LayerRuleError(
            f"{self} must name weights of the layer's own. "
            f"Received: {key!r}. Try one of {list(own)}; weights of a layer within are its own."
        )

    def _fitting(self, name, shape, pair, delta):
        """Return A and Δ as tensors whose shapes fit each other and the weight."""
        form = f"{self} must return (A, Δ), of floating point, for the weight {name!r}"
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise LayerRuleError(f"{form}. Received: {pair!r}. Try `return {{{name!r}: (A, Δ)}}`.")
        a, d = (tf.convert_to_tensor(part) for part in pair)
        if not (a.dtype.is_floating and d.dtype.is_floating):
            raise LayerRuleError(
                f"{form}. Received: {a.dtype.name} and {d.dtype.name}. Try `keras.ops.cast`."
            )
        if not _fit(a.shape, d.shape, delta.shape[0], math.prod(shape)):
            wanted = "n" if delta.shape[0] is None else f"n = {delta.shape[0]}"
            raise LayerRuleError(
                f"{self} must return A [n, …, i] and Δ [n, …, o] for the weight {name!r} of shape "
                f"{tuple(shape)}, with {wanted}, as many positions in both, and "
                f"i * o = {math.prod(shape)}. Received: A with {_words(a.shape, 'i')}; "
                f"Δ with {_words(d.shape, 'o')}. Try A, the tensor that the layer multiplies by "
                "the weight, and Δ, the adjoint of the product."
            )
        return a, d

    def _one_tensor(self, outputs):
        if not tf.is_tensor(outputs) or not outputs.dtype.is_floating:
            raise LayerRuleError(
                f"`{self.layer_types[0].__name__}` must return one floating-point tensor to be "
                f"registered without `activation=`. Received: {type(outputs).__name__}. "
                "Try to hold the function that is applied to Z in an attribute, and name it."
            )
        return outputs

    def _activation_of(self, layer):
        missing = object()
        function = getattr(layer, self.activation, missing)
        if function is missing or not (function is None or callable(function)):
            received = "no such attribute" if function is missing else repr(function)
            raise LayerRuleError(
                f"`activation` must name the attribute of `{type(layer).__name__}` that holds the "
                f"function applied to Z. Received: {self.activation!r}, {received}. "
                "Try another name, or none if the adjoint is to be that of the output."
            )
        return function

    def _last(self, heard):
        if not heard:
            raise LayerRuleError(
                "`activation` must name an attribute that the layer calls with Z. "
                f"Received: {self.activation!r}, which `{self.layer_types[0].__name__}.call` does "
                f"not call. Try `self.{self.activation}(z)` in it, or another name."
            )
        return heard[-1]


def require_layer_class(layer_class):
    """Check that a class is one of Keras layers.

    Args:
        layer_class: Anything.

    Raises:
        LayerRuleError: If it is not.
    """
    if not (isinstance(layer_class, type) and issubclass(layer_class, keras.layers.Layer)):
        raise LayerRuleError(
            "`layer_class` must be a class of Keras layers. "
            f"Received: {layer_class!r}. Try `@ks.register_layer(MyLayer)` above the function."
        )


def _own(layer):
    """Return the layer's own variables, trainable or frozen, by unique name."""
    own = own_variables(layer)
    return dict(zip(numbered(variable.name for variable in own), own, strict=True))


def _listening(activation, heard):
    def listening_activation(z, *args, **kwargs):
        heard.append(z)
        return z if activation is None else activation(z, *args, **kwargs)

    return listening_activation


def _fit(a, d, n, size):
    """Return whether the static shapes of A and Δ fit each other and a weight of some size."""
    if None in {a.rank, d.rank} or min(a.rank, d.rank) < 2 or None in {a[-1], d[-1]}:
        return False
    examples = {a[0], d[0], n} - {None}
    positions = {_positions(a), _positions(d)} - {None}
    return len(examples) <= 1 and len(positions) <= 1 and a[-1] * d[-1] == size


def _positions(shape):
    return None if None in shape[1:-1] else math.prod(shape[1:-1])


def _words(shape, feature):
    if shape.rank is None or shape.rank < 2:
        return f"shape {shape}"
    n, s = ("unknown" if size is None else size for size in (shape[0], _positions(shape)))
    return f"n = {n}, positions = {s}, {feature} = {shape[-1]} (shape {shape})"


def _require_function(function):
    try:
        inspect.signature(function).bind("layer", "inputs", "adjoint")
    except TypeError as error:
        raise LayerRuleError(
            "What is registered must be a function of three arguments. "
            f"Received: {function!r}. Try `def factors(layer, inputs, adjoint): …`."
        ) from error


def _require_attribute_name(activation):
    if not (activation is None or isinstance(activation, str)):
        raise LayerRuleError(
            "`activation` must be the name of an attribute of the layer, or None. "
            f'Received: {activation!r}. Try `activation="activation"`.'
        )
