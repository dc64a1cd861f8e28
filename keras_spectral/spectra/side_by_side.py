"""Activations of which every output feature sees its own part.

Letters: `n` example, `s` position, `b` part, `i` features of a part, `o` output feature, `g` group.

The gates of a recurrent layer may drop different inputs: `Z_b = A_b W_b`, for columns `W_b` of the
weight. The parts of A stand side by side, and the gradient is made of the blocks `A_bᵀ Δ_b`.
"""

import tensorflow as tf

from keras_spectral.spectra.rows import taken


class SideBySide(tf.experimental.ExtensionType):
    """Parts of equal width.

    Attributes:
        tensor: Tensor `[n, s, b i]`.
        outputs: Tuple with the number of output features of each part.
    """

    tensor: tf.Tensor
    outputs: tuple[int, ...]

    @property
    def dtype(self):
        """The type of the numbers."""
        return self.tensor.dtype

    @property
    def width(self):
        """Features of all parts."""
        return int(self.tensor.shape[-1])

    @property
    def blocks(self):
        """Number of parts."""
        return len(self.outputs)

    @property
    def positions(self):
        """Positions: an integer if it is static, else a scalar tensor."""
        s = self.tensor.shape[1]
        return tf.shape(self.tensor)[1] if s is None else s

    def gradient_shape(self, o):
        """Return the shape of the gradient, as the weight has it.

        Args:
            o: Features of the other factor.
        """
        return self.width // len(self.outputs), o

    def joined(self, others):
        """Return the rows of this call and of others of the same layer.

        Args:
            others: List of `SideBySide`.
        """
        tensors = [self.tensor, *(part.tensor for part in others)]
        return SideBySide(tf.concat(tensors, axis=1), self.outputs)

    def rows(self):
        """Return the tensor `[n, s, b i]`."""
        return self.tensor

    def products(self, other, rows):
        """Return the gradients `[g, i, o]` of each group, in float64.

        Args:
            other: Tensor `[n, s, o]`.
            rows: `GroupRows`, or `None` for the whole batch (`g = 1`).
        """
        parts = tf.split(self.tensor, len(self.outputs), axis=-1)
        others = tf.split(other, self.outputs, axis=-1)
        products = [
            tf.matmul(taken(a, rows), taken(d, rows), transpose_a=True)
            for a, d in zip(parts, others, strict=True)
        ]
        return tf.concat(products, axis=-1)
