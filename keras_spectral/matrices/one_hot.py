"""Tokens as a one-hot matrix that is never formed.

Letters: `n` example, `s` position, `v` vocabulary, `o` output feature, `u` different tokens.

Row `(n, s)` is 1 at its token. So `AᵀA` is diagonal with the counts of the tokens, the singular
values of A are the roots of the counts, and `AᵀΔ` sums the rows of Δ by token.
"""

import numpy as np
import scipy.sparse
import tensorflow as tf

from keras_spectral.matrices.base import Matrix, array, taken


class OneHot(tf.experimental.ExtensionType, Matrix):
    """Tokens of all calls of a layer.

    Attributes:
        ids: Integer tensor `[n, s]`.
        vocabulary: Number of tokens in the vocabulary.
    """

    ids: tf.Tensor
    vocabulary: int

    @property
    def n(self):
        """Number of examples."""
        return int(self.ids.shape[0])

    @property
    def width(self):
        """Features of a row."""
        return self.vocabulary

    @property
    def positions(self):
        """Positions of all calls."""
        return int(self.ids.shape[1])

    @property
    def adds_up(self):
        """False: `product` leaves out rows of absent tokens, which differ between examples."""
        return False

    def joined(self, others):
        """Return the tokens of this call and of others of the same layer.

        Args:
            others: List of `OneHot`.
        """
        return OneHot(tf.concat([self.ids, *(part.ids for part in others)], 1), self.vocabulary)

    def rows(self, examples=None):
        """Return the one-hot rows of some examples in float64."""
        return np.eye(self.vocabulary)[self._tokens(examples)]

    def singular_values(self, examples=None):
        """Return the singular values of the rows of some examples: the roots of the counts.

        Args:
            examples: As in `rows`.

        Returns:
            float64 array `[min(m s, v)]`, largest first.
        """
        tokens = self._tokens(examples)
        _, counts = np.unique(tokens, return_counts=True)
        found = np.zeros(min(len(tokens), self.vocabulary))
        found[: len(counts)] = np.sqrt(np.sort(counts)[::-1])
        return found

    def product(self, other, examples=None):
        """Return `AᵀΔ` over the rows of some examples.

        Args:
            other: `Matrix` of the adjoint.
            examples: As in `rows`.

        Returns:
            float64 array `[v, o]` if `v < o`, else `[u, o]` without the rows of absent tokens,
            which are zero.
        """
        tokens, number = self._tokens(examples), self.vocabulary
        if self.vocabulary >= other.width:
            different, tokens = np.unique(tokens, return_inverse=True)
            number = len(different)
        ones, places = np.ones(len(tokens)), np.arange(len(tokens))
        one_hot = scipy.sparse.csr_array((ones, (tokens, places)), shape=(number, len(tokens)))
        return one_hot @ np.asarray(other.rows(examples))

    def _tokens(self, examples):
        return np.asarray(taken(array(self.ids), examples)).reshape(-1)
