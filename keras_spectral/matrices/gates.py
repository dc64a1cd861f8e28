"""Activations of recurrent layers whose gates have different inputs.

Letters: `n` example, `s` position, `b` gate, `i` features of a part, `o` output feature.

Dropout may drop different inputs for each gate: `Z_b = A_b W_b`, with `W_b` some columns of the
weight. The parts `A_b` stand side by side, and the gradient consists of the blocks `A_bᵀ Δ_b`.
"""

import itertools

import numpy as np
import tensorflow as tf

from keras_spectral.matrices.base import Matrix, array, flat, float64, taken, transposed


class Gates(tf.experimental.ExtensionType, Matrix):
    """The inputs of all gates, side by side, of equal width.

    Attributes:
        tensor: Tensor `[n, s, b i]`.
        outputs: Tuple with the number of columns of the weight for each part.
    """

    tensor: tf.Tensor
    outputs: tuple[int, ...]

    @property
    def n(self):
        """Number of examples."""
        return int(self.tensor.shape[0])

    @property
    def width(self):
        """Features of all parts."""
        return int(self.tensor.shape[-1])

    @property
    def n_blocks(self):
        """Number of parts."""
        return len(self.outputs)

    @property
    def positions(self):
        """Number of positions."""
        return int(self.tensor.shape[1])

    def joined(self, others):
        """Return the rows of this call and of others of the same layer.

        Args:
            others: List of `Gates`.
        """
        tensors = [self.tensor, *(part.tensor for part in others)]
        return Gates(tf.concat(tensors, axis=1), self.outputs)

    def rows(self, examples=None):
        """Return the parts of some examples side by side, in float64."""
        return float64(flat(taken(array(self.tensor), examples)))

    def finite(self):
        """Return these parts with NaN and Inf replaced by zeros."""
        x = self.tensor
        return Gates(tf.where(tf.math.is_finite(x), x, tf.zeros_like(x)), self.outputs)

    def product(self, other, examples=None):
        """Return the gradient `[i, o]` through some examples: the products of all parts."""
        a, d = self.rows(examples), other.rows(examples)
        i = self.width // self.n_blocks
        ends = list(itertools.accumulate(self.outputs, initial=0))
        found = [
            transposed(a[:, b * i : (b + 1) * i]) @ d[:, begin:end]
            for b, (begin, end) in enumerate(itertools.pairwise(ends))
        ]
        return np.concatenate([np.asarray(part) for part in found], axis=-1)
