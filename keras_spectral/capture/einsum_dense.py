"""EinsumDense layers: `Z = einsum(equation, x, W) + b`, and through them the attention layers.

The letters of the equation are of four kinds. Letters of the input and the output, but not of the
kernel, are shared positions, the example first. Letters of the kernel and the input only are input
features, together `i`; letters of the kernel and the output only are output features, together `o`.
Letters of the input only are summed over before the product with the kernel. So with A and Δ
transposed to `[n, …, i]` and `[n, …, o]`, `G = AᵀΔ` is the gradient of the kernel with its axes in
the order `[i, o]`.

Equations with a letter of all three (a separate kernel for each position) or a repeated letter have
no such form.
"""

import math
import string
from typing import NamedTuple

import keras
import tensorflow as tf

from keras_spectral.capture.product import ProductRule
from keras_spectral.capture.rule import InWords


class EinsumDenseRule(ProductRule):
    """Captures `keras.layers.EinsumDense` where its equation is a matrix product."""

    layer_types = (keras.layers.EinsumDense,)
    in_words = (
        InWords(
            "kernel",
            "the input, its axes in the order `[n, …, i]`",
            "`∂L/∂Z`, its axes in the order `[n, …, o]`",
            "`[i, o]`",
        ),
    )
    left_to_generic = (
        "LoRA",
        "quantised weights",
        "an equation that is no product",
    )

    def obstacle(self, layer):
        """Return why this layer cannot be captured by the rule, or `None`."""
        x, w, z = _operands(layer.equation)
        why = None
        named = [letters.replace(".", "") for letters in (x, w, z)]
        if any(len(set(letters)) < len(letters) for letters in named):
            why = "repeats a letter"
        elif set(x) & set(w) & set(z):
            why = "has a kernel of its own for each position"
        elif x[:1] != z[:1]:
            why = "does not lead with the example in its input and its output"
        return f"the equation {layer.equation!r} {why}" if why else super().obstacle(layer)

    def normal_form(self, layer, inputs, delta):
        """Return `A [n, …, i]` and `Δ [n, …, o]`."""
        named = _axes(layer.equation)
        of_x = _axes(layer.equation, inputs.shape.rank - len(named.x))
        of_z = _axes(layer.equation, delta.shape.rank - len(named.z))
        a = tf.einsum(f"{of_x.x}->{of_x.shared}{of_x.i}", inputs)
        d = tf.einsum(f"{of_z.z}->{of_z.shared}{of_z.o}", delta)
        return {"kernel": (_merged(a, len(of_x.i)), _merged(d, len(of_z.o)))}

    def matrices(self, layer, name, gradients):
        """Return gradients of the kernel as matrices `[n, i, o]`."""
        axes = _axes(layer.equation)
        order = [1 + axes.w.index(letter) for letter in axes.i + axes.o]
        i, o = (
            math.prod(layer.kernel.shape[axes.w.index(letter)] for letter in letters)
            for letters in (axes.i, axes.o)
        )
        return tf.reshape(tf.transpose(gradients, [0, *order]), [tf.shape(gradients)[0], i, o])


class _Axes(NamedTuple):
    """Letters of the operands, and of the three kinds that the gradient needs."""

    x: str
    w: str
    z: str
    shared: str
    i: str
    o: str


def _axes(equation, n_hidden=0):
    """Return the letters of an equation, whose ellipsis stands for some axes."""
    x, w, z = _operands(equation)
    unused = [letter for letter in string.ascii_letters if letter not in equation]
    hidden = "".join(unused[:n_hidden])
    x, z = x.replace("...", hidden), z.replace("...", hidden)
    return _Axes(
        x,
        w,
        z,
        "".join(letter for letter in x if letter in z and letter not in w),
        "".join(letter for letter in w if letter in x),
        "".join(letter for letter in w if letter in z),
    )


def _operands(equation):
    left, z = equation.replace(" ", "").split("->")
    x, w = left.split(",")
    return x, w.replace("...", ""), z


def _merged(tensor, n_axes):
    """Return a tensor with its last `n_axes` axes merged into one."""
    if n_axes == 1:
        return tensor
    kept = tensor.shape.rank - n_axes
    width = math.prod(tensor.shape[kept:])
    dynamic = tf.shape(tensor)
    sizes = [dynamic[k] if tensor.shape[k] is None else tensor.shape[k] for k in range(kept)]
    return tf.reshape(tensor, [*sizes, width])
