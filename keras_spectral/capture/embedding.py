"""Embeddings: `Z = onehot(tokens) E`.

Letters: `n` example, `s` position, `v` vocabulary, `o` output feature.

A is the one-hot rows of the tokens `[n, s, v]`, which are never formed, and Δ is `∂L/∂Z [n, s, o]`,
so `G = AᵀΔ` is the gradient of the embeddings `[v, o]`: the rows of Δ summed by token. The singular
values of A are the roots of the counts of the tokens.

An embedding that is also the output projection of a language model with tied weights is not such a
product: the generic rule captures `keras.layers.ReversibleEmbedding`, with one gradient of both
uses.
"""

from contextlib import contextmanager

import keras
import tensorflow as tf

from keras_spectral.capture.calls import Call
from keras_spectral.capture.keras_layers import attributes
from keras_spectral.capture.product import ProductRule
from keras_spectral.capture.rule import InWords
from keras_spectral.matrices.factors import with_positions
from keras_spectral.matrices.one_hot import OneHot


class EmbeddingRule(ProductRule):
    """Captures `keras.layers.Embedding`."""

    layer_types = (keras.layers.Embedding,)
    weight_names = ("embeddings",)
    in_words = (
        InWords(
            "embeddings",
            "the one-hot rows of the tokens `[n, s, v]`, never formed",
            "`∂L/∂Z [n, s, o]`",
            "`[v, o]`",
        ),
    )
    left_to_generic = ("LoRA", "quantised weights")

    def normal_form(self, layer, inputs, delta):
        """Return the tokens, and the adjoint of their embeddings."""
        ids = tf.cast(inputs, tf.int32)[..., None]
        ids = tf.where(ids < 0, ids + layer.input_dim, ids)  # negative tokens count from the end
        ids = with_positions(ids, tf.shape(ids)[0])[..., 0]
        return {"embeddings": (OneHot(ids, layer.input_dim), delta)}

    @contextmanager
    def watched(self, layer, calls, watch=None):
        """Return a context in which every call of the layer is appended to `calls`."""
        call = layer.call

        def listening_call(inputs, *args, **kwargs):
            outputs = call(inputs, *args, **kwargs)
            calls.append(Call(inputs, (outputs,)))
            return outputs

        with attributes(layer, call=listening_call):
            yield
