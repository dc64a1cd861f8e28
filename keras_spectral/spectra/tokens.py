"""Looked-up tokens, as a one-hot matrix that is never formed.

Letters: `n` example, `s` position, `v` vocabulary, `o` output feature, `g` group, `r` rows of the
largest group, `u` different tokens.

Row `(n, s)` is 1 at its token. So `AᵀA` is diagonal with the counts of the tokens, the singular
values of A are the roots of the counts, and `AᵀΔ` sums the rows of Δ by token.
"""

import tensorflow as tf

from keras_spectral.spectra.rows import taken


class Tokens(tf.experimental.ExtensionType):
    """Tokens of all calls of a layer.

    Attributes:
        ids: Integer tensor `[n, s]`.
        vocabulary: Number of different tokens that there could be.
    """

    ids: tf.Tensor
    vocabulary: int

    @property
    def dtype(self):
        """The type of the numbers: a one-hot matrix has no precision to lose."""
        return tf.float32

    @property
    def width(self):
        """Features of a row."""
        return self.vocabulary

    @property
    def positions(self):
        """Positions of all calls: an integer if it is static, else a scalar tensor."""
        return tf.shape(self.ids)[1] if self.ids.shape[1] is None else self.ids.shape[1]

    def gradient_shape(self, o):
        """Return the shape of `AᵀΔ`, as the weight has it.

        Args:
            o: Features of the other factor.
        """
        return self.vocabulary, o

    def joined(self, others):
        """Return the tokens of this call and of others of the same layer.

        Args:
            others: List of `Tokens`.
        """
        return Tokens(tf.concat([self.ids, *(part.ids for part in others)], 1), self.vocabulary)

    def spectra(self, rows):
        """Return Frobenius norm and singular values `[g, 1 + min(n s, v)]` of each group.

        Args:
            rows: `GroupRows`, or `None` for the whole batch (`g = 1`).
        """
        number, index = self._numbered(rows)
        counts = _summed(tf.ones_like(index, tf.float64)[..., None], index, number)[..., 0]
        squares = tf.concat(
            [
                tf.reduce_sum(counts, axis=1, keepdims=True),
                tf.sort(counts, axis=1, direction="DESCENDING"),
            ],
            axis=1,
        )
        return tf.sqrt(squares)

    def products(self, other, rows):
        """Return `AᵀΔ` of each group in float64, rows of absent tokens left out if they are many.

        Args:
            other: Tensor `[n, s, o]`.
            rows: `GroupRows`, or `None` for the whole batch (`g = 1`).

        Returns:
            Tensor `[g, v, o]` if `v < o`, else `[g, min(n s, v), o]`, whose other rows are zero.
        """
        number, index = self._numbered(rows)
        if self.vocabulary < other.shape[-1]:
            number, index = self.vocabulary, self._of_groups(self.ids, rows, self.vocabulary)
        return _summed(taken(other, rows), index, number)

    def _numbered(self, rows):
        """Return a bound of the different tokens of the batch, and their numbers `[g, r]`."""
        flat = tf.reshape(self.ids, [-1])
        number = tf.minimum(tf.size(flat), self.vocabulary)
        _, index = tf.unique(flat)
        return number, self._of_groups(tf.reshape(index, tf.shape(self.ids)), rows, number)

    def _of_groups(self, index, rows, padding):
        if rows is None:
            return tf.reshape(index, [1, -1])
        padded = tf.pad(index, [[0, 1], [0, 0]], constant_values=padding)
        found = tf.gather(padded, rows.index)
        shape = tf.shape(found)
        return tf.reshape(found, [shape[0], shape[1] * shape[2]])


def _summed(values, index, number):
    """Return sums `[g, number, o]` of values `[g, r, o]` by their index `[g, r]`."""
    g, o = tf.shape(values)[0], values.shape[-1]
    index = tf.cast(index, tf.int32)
    place = tf.range(g)[:, None] * (number + 1) + index
    flat = tf.reshape(values, [-1, o])
    sums = tf.math.unsorted_segment_sum(flat, tf.reshape(place, [-1]), g * (number + 1))
    return tf.reshape(sums, tf.stack([g, number + 1, o]))[:, :-1]
