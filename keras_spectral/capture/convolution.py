"""Convolutions: `Z = patches(x) W + b`, and the transposed, the depthwise and the separable ones.

Letters: `n` example, `s` position, `k` kernel offset, `c` input channel, `o` output channel, `m`
depth multiplier.

For a convolution, A is the patches of the input (im2col) `[n, s, k c]` and Δ is `∂L/∂Z [n, s, o]`,
so `G = AᵀΔ` is the gradient of the kernel `[k, c, o]`, with its first axes flattened. With
`groups`, channels are multiplied only with the filters of their group: the gradient `[k c/groups,
o]` consists of the diagonal blocks of `AᵀΔ`. A depthwise convolution has as many groups as
channels, and the gradient `[k, c m]`.

For a transposed convolution, A is the input `[n, s, c]` and Δ the patches of `∂L/∂Z` that each
input position contributes to, `[n, s, k o]`, so `G = AᵀΔ` is the gradient of the kernel `[k, o, c]`
as a matrix `[c, k o]`.

A separable convolution is a depthwise one with output `Y [n, s, c m]`, followed by a pointwise one.
For the depthwise part Δ is `∂L/∂Y`; for the pointwise part A is `Y` and Δ is `∂L/∂Z`.
"""

import math

import keras
import tensorflow as tf

from keras_spectral.capture.product import ProductRule
from keras_spectral.capture.rule import InWords
from keras_spectral.matrices.patches import Patches

L = keras.layers

DEPTHWISE = "the patches of the input, a block for each channel `[n, s, k c]`"


class ConvolutionRule(ProductRule):
    """Captures `Conv1D`, `Conv2D` and `Conv3D`."""

    layer_types = (L.Conv1D, L.Conv2D, L.Conv3D)
    in_words = (
        InWords(
            "kernel",
            "the patches of the input `[n, s, k c]`",
            "`∂L/∂Z [n, s, o]`",
            "`[k c, o]`; with `groups` `[k c/groups, o]`",
        ),
    )
    left_to_generic = ("LoRA",)

    def normal_form(self, layer, inputs, delta):
        """Return patches of the input, and `∂L/∂Z`."""
        a = _patches(layer, inputs, layer.groups)
        return {"kernel": (a, _channels_last(layer, delta))}


class TransposedConvolutionRule(ProductRule):
    """Captures `Conv1DTranspose`, `Conv2DTranspose` and `Conv3DTranspose`."""

    layer_types = (L.Conv1DTranspose, L.Conv2DTranspose, L.Conv3DTranspose)
    in_words = (
        InWords(
            "kernel",
            "the input `[n, s, c]`",
            "the patches of `∂L/∂Z` that each input position reaches `[n, s, k o]`",
            "`[c, k o]`",
        ),
    )

    def normal_form(self, layer, inputs, delta):
        """Return the input, and patches of `∂L/∂Z`."""
        return {"kernel": (_channels_last(layer, inputs), _patches(layer, delta, 1))}

    def matrices(self, layer, name, gradients):
        """Return gradients of the kernel as matrices `[n, c, k o]`."""
        return tf.linalg.matrix_transpose(super().matrices(layer, name, gradients))


class DepthwiseConvolutionRule(ProductRule):
    """Captures `DepthwiseConv1D` and `DepthwiseConv2D`."""

    layer_types = (L.DepthwiseConv1D, L.DepthwiseConv2D)
    in_words = (InWords("kernel", DEPTHWISE, "`∂L/∂Z [n, s, c m]`", "`[k, c m]`"),)

    def normal_form(self, layer, inputs, delta):
        """Return patches of the input, a block for each channel, and `∂L/∂Z`."""
        a = _patches(layer, inputs, layer.kernel.shape[-2])
        return {"kernel": (a, _channels_last(layer, delta))}

    def matrices(self, layer, name, gradients):
        """Return gradients of the kernel as matrices `[n, k, c m]`."""
        return _depthwise_matrices(layer.kernel, gradients)


class SeparableConvolutionRule(ProductRule):
    """Captures `SeparableConv1D` and `SeparableConv2D`."""

    layer_types = (L.SeparableConv1D, L.SeparableConv2D)
    weight_names = ("depthwise_kernel", "pointwise_kernel")
    in_words = (
        InWords("depthwise_kernel", DEPTHWISE, "`∂L/∂Y [n, s, c m]`", "`[k, c m]`"),
        InWords(
            "pointwise_kernel",
            "`Y`, the output of the depthwise part `[n, s, c m]`",
            "`∂L/∂Z [n, s, o]`",
            "`[c m, o]`",
        ),
    )

    def normal_form(self, layer, inputs, delta):
        """Return A and Δ of the depthwise convolution and of the pointwise one."""
        depthwise, pointwise = layer.depthwise_kernel, layer.pointwise_kernel
        between = keras.ops.depthwise_conv(
            inputs,
            tf.cast(depthwise.value, inputs.dtype),
            strides=layer.strides,
            padding=layer.padding,
            data_format=layer.data_format,
            dilation_rate=layer.dilation_rate,
        )
        delta = _channels_last(layer, delta)
        mixing = tf.reshape(tf.cast(pointwise.value, delta.dtype), pointwise.shape[-2:])
        before = tf.tensordot(delta, mixing, [[-1], [1]])
        return {
            "depthwise_kernel": (_patches(layer, inputs, depthwise.shape[-2]), before),
            "pointwise_kernel": (_channels_last(layer, between), delta),
        }

    def matrices(self, layer, name, gradients):
        """Return gradients of a kernel as matrices `[n, k, c m]` or `[n, c m, o]`."""
        if name == "depthwise_kernel":
            return _depthwise_matrices(layer.depthwise_kernel, gradients)
        return super().matrices(layer, name, gradients)


def _patches(layer, tensor, blocks):
    return Patches(
        (_channels_last(layer, tensor),),
        tuple(layer.kernel_size),
        tuple(layer.strides),
        tuple(layer.dilation_rate),
        layer.padding,
        blocks,
    )


def _channels_last(layer, tensor):
    if layer.data_format == "channels_last":
        return tensor
    return tf.transpose(tensor, [0, *range(2, tensor.shape.rank), 1])


def _depthwise_matrices(kernel, gradients):
    *offsets, c, m = kernel.shape
    return tf.reshape(gradients, [tf.shape(gradients)[0], math.prod(offsets), c * m])
