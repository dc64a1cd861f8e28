"""What a layer family has to answer: what are A and Δ of this layer?

Letters: `n` example, `s` shared position, `i` input feature, `o` output feature.
"""

import math
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import keras
import tensorflow as tf

from keras_spectral.capture.per_example import example_gradients_of
from keras_spectral.matrices.factors import Factors, in_rows, joined_calls


@dataclass(frozen=True)
class Call:
    """One call of a layer in the forward pass.

    Attributes:
        inputs: What the layer received (after casting to its compute type).
        outputs: Tuple of tensors with respect to which the loss is differentiated: `Z`, to which
            the activation function is applied, or all that the layer returned.
        again: Function by which the rule runs the call once more, if one look is not enough.
    """

    inputs: Any
    outputs: tuple
    again: Any = None

    @property
    def leading(self):
        """Set of the sizes of the leading axes of the outputs, as far as they are known."""
        return {output.shape[0] if output.shape.rank else 0 for output in self.outputs}


class Received(NamedTuple):
    """What one call of a layer received, from which it can be run again.

    Attributes:
        args: Positional arguments.
        kwargs: Arguments by name.
        state: Pairs of each variable that is not trained (a moving average, the state of a random
            generator) and its value before the call.
    """

    args: tuple
    kwargs: dict
    state: list

    @property
    def inputs(self):
        """The first argument."""
        return next(iter((*self.args, *self.kwargs.values())))

    def run_by(self, layer, values=()):
        """Return what the layer returns, which keeps the state that it has.

        Args:
            layer: The layer.
            values: Pairs of a variable and the value that it has meanwhile.
        """
        with losses_kept(layer), keras.StatelessScope([*self.state, *values]):
            return layer(*self.args, **self.kwargs)


def state_of(layer):
    """Return pairs of each variable of a layer that is not trained, and its value.

    Args:
        layer: A built Keras layer.
    """
    return [(v, tf.identity(v.value)) for v in layer.non_trainable_variables]


class Backward(NamedTuple):
    """What is at hand after the backward pass.

    Attributes:
        n: Scalar tensor, the number of examples.
        mask: 0/1 tensor `[n, g]`, or `None`.
        scale: Factor by which the loss was multiplied for mixed precision, or `None`.
        example_gradients: Whether to differentiate every example with `tape.jacobian`.
    """

    n: Any
    mask: Any
    scale: Any = None
    example_gradients: bool = False


class InWords(NamedTuple):
    """What a rule answers for one weight, in words, for `docs/layers.md`.

    Attributes:
        weight: Name of the weight.
        a: What A is.
        delta: What Δ is.
        gradient: Shape of the matrix G.
    """

    weight: str
    a: str
    delta: str
    gradient: str


class Rule(Protocol):
    """How one layer family is captured. One file per family implements it."""

    layer_types: tuple
    """Keras classes whose `call` the rule knows; subclasses that keep that `call` are covered."""

    def obstacle(self, layer) -> str | None:
        """Return why this very layer cannot be captured, or `None`."""

    def host(self, layer, around) -> Any:
        """Return the layer whose calls are watched, or `None` if there is none.

        Args:
            layer: The layer that has the weights.
            around: Tuple of the layers around it, the nearest first.
        """

    def weights(self, layer) -> Any:
        """Return the captured weights, as pairs `(name, variable)`."""

    def watched(self, layer, calls: list[Call], watch):
        """Return a context in which every call of a host is appended to `calls`.

        Args:
            layer: The host.
            calls: List of `Call`.
            watch: Function by which the tape watches a tensor that depends on no weight.
        """

    def factors(self, layer, calls, adjoints, backward) -> Any:
        """Return `{weight name: Factors}`, all rows of all calls of the layer together.

        Args:
            layer: The layer.
            calls: List of `Call`.
            adjoints: For each call a list of `∂L/∂output`, in the shapes of its outputs; `None` for
                an output that no gradient reaches, though not for all of one call.
            backward: `Backward`.
        """


@contextmanager
def attributes(layer, **values):
    """Set instance attributes of a layer for a while, and leave no trace, whatever happens.

    Works on the instance dictionary: Keras neither tracks nor locks what is put there.

    Args:
        layer: The layer.
        **values: Attribute values.

    Yields:
        Nothing.
    """
    before = {name: layer.__dict__[name] for name in values if name in layer.__dict__}
    layer.__dict__.update(values)
    try:
        yield
    finally:
        for name in values:
            layer.__dict__.pop(name, None)
        layer.__dict__.update(before)


@contextmanager
def losses_kept(model):
    """Leave what layers have added to the loss as it is, whatever is called.

    Args:
        model: A Keras layer or model.

    Yields:
        Nothing.
    """
    before = [(layer, layer._losses[:]) for layer in model._flatten_layers()]
    try:
        yield
    finally:
        for layer, losses in before:
            layer._losses[:] = losses


def name_of_call(layer):
    """Return the name of the method that Keras runs when a layer is called.

    Args:
        layer: A Keras layer.
    """
    return "call" if layer.quantization_mode is None else "quantized_call"


def own_variables(layer):
    """Return the weights of a layer that are of none of the layers within, to which it may refer.

    Args:
        layer: A built Keras layer.
    """
    within = {id(v) for part in layer._flatten_layers(include_self=False) for v in part.variables}
    everything = layer._trainable_variables + layer._non_trainable_variables
    return [variable for variable in everything if id(variable) not in within]


def numbered(names):
    """Return names made unique: the second of a kind ends in `#2`.

    Args:
        names: Sequence of texts.
    """
    seen, result = Counter(), []
    for name in names:
        seen[name] += 1
        result.append(f"{name}#{seen[name]}" if seen[name] > 1 else name)
    return result


def unscaled(adjoint, scale):
    """Return an adjoint of the loss itself, in a type that holds it well.

    Args:
        adjoint: Tensor, `∂(scale L)/∂Z`.
        scale: Factor by which the loss was multiplied for mixed precision, or `None`.
    """
    if scale is None:
        return adjoint
    # float16 holds the scaled adjoint well and the unscaled one badly: widen first.
    wide = unscaled_type(adjoint.dtype)
    return tf.cast(adjoint, wide) / tf.cast(scale, wide)


def unscaled_type(dtype):
    """Return the type of what was scaled: at least float32.

    Args:
        dtype: The type that it had before.
    """
    return tf.float64 if dtype == tf.float64 else tf.float32


class ProductRule:
    """What rules of layers whose weights enter as products have in common: `Z = A W + b`.

    A family says in `normal_form` what A and Δ are. The layer is watched by listening to what its
    activation function receives: Keras' own code computes everything, so numbers stay bit for bit
    what they are without us.
    """

    layer_types: tuple
    weight_names: tuple = ("kernel",)
    in_words: tuple[InWords, ...] = ()
    left_to_generic: tuple[str, ...] = ()
    """Options with which a layer of the family goes to the generic rule, in words."""

    def normal_form(self, layer, inputs, delta) -> Any:
        """Return `{weight name: (A, Δ)}` of one call.

        Args:
            layer: The layer.
            inputs: What it received.
            delta: `∂L/∂Z`, in the shape of Z.

        Returns:
            Tensors `[n, …, i]` and `[n, …, o]`, or what `Factors` takes in their place.
        """
        raise NotImplementedError

    def matrices(self, layer, name, gradients):
        """Return gradients of a weight `[n, …]` as matrices `[n, i, o]`, by default its last axis.

        Args:
            layer: The layer.
            name: Name of the weight.
            gradients: Tensor `[n, …]`.
        """
        *rows, columns = gradients.shape[1:]
        return tf.reshape(gradients, [tf.shape(gradients)[0], math.prod(rows), columns])

    def obstacle(self, layer):
        """Return why this very layer cannot be captured, or `None`."""
        if layer.quantization_mode is not None:
            return f"quantised weights ({layer.quantization_mode}), in a `call` of their own"
        if getattr(layer, "lora_enabled", False):
            return "LoRA: the kernel is frozen"
        return None

    def host(self, layer, around):
        """Return the layer itself, whose calls are watched."""
        return layer

    def weights(self, layer):
        """Return the captured weights, by name."""
        return [(name, getattr(layer, name)) for name in self.weight_names]

    def factors(self, layer, calls, adjoints, backward):
        """Return A and Δ of every weight."""
        found = {name: [] for name in self.weight_names}
        for call, (delta,) in zip(calls, adjoints, strict=True):
            delta = unscaled(delta, backward.scale)
            of_examples = {}
            if backward.example_gradients:
                of_examples = example_gradients_of(self, layer, call, delta, backward.n)
            for name, pair in self.normal_form(layer, call.inputs, delta).items():
                a, d = (in_rows(part, backward.n) for part in pair)
                found[name].append(Factors(a, d, of_examples.get(name)))
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

    def pre_activation(self, layer, inputs):
        """Return `Z` computed afresh by Keras' own code."""
        calls = []
        with self.watched(layer, calls), losses_kept(layer):
            layer(inputs)
        return calls[0].outputs[0]
