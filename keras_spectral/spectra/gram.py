"""The Gram route: spectra as roots of eigenvalues of float64 Gram matrices of the cheaper side.

Letters: `n` example, `s` position, `i` input feature, `o` output feature, `g` group, `p` matrices
of equal size that are solved together, `d` their size.

On the side of the rows, with `K_A = A Aᵀ` and `K_Δ = Δ Δᵀ`, the squared singular values of `AᵀΔ`
are the eigenvalues of `Lᵀ K_Δ L` for any `L Lᵀ = K_A`, and the matrices of a group are principal
sub-blocks: one product per factor serves every group and all three quantities.

Source: Horn and Johnson, "Matrix Analysis", theorem 1.3.22 (`XY` and `YX` share eigenvalues).
"""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from keras_spectral.spectra.costs import prefers_rows, prefers_rows_for_gradient
from keras_spectral.spectra.matrices import Spectra, group_matrix

FACTORS = ("activation", "adjoint")


@dataclass(frozen=True)
class _RowStack:
    """Row-by-row Gram matrices `[p, n s, n s]` of one factor of several layers."""

    layers: tuple[int, ...]
    gram: Any
    positions: Any

    def block(self, rows):
        """Return the Gram matrices `[p, g, d, d]` of the whole batch or of the groups."""
        return (
            self.gram[:, None] if rows is None else rows.principal_blocks(self.gram, self.positions)
        )


class GramRoute:
    """Spectra of several layers over one batch.

    Args:
        factors: List of `Factors`, one per weight.
        quantities: The wanted quantities.
        sizes: Expected examples of the whole batch and of each group.
    """

    def __init__(self, factors, quantities, sizes):
        self._factors = factors
        self._quantities = quantities
        self._gradient_on_rows = [
            "gradient" in quantities and _gradient_on_rows(factor, sizes) for factor in factors
        ]
        self._stacks = self._row_stacks(sizes)

    def spectra(self, rows):
        """Return the spectra of one block.

        Args:
            rows: `GroupRows`, or `None` for the whole batch.

        Returns:
            List of `Spectra`.
        """
        on_rows = self._on_rows(rows)
        done = {name for solved in on_rows for name in solved.names}
        wanted = [solved for solved in on_rows if solved.names[0][1] in self._quantities]
        return wanted + self._on_features(rows, done)

    def _row_stacks(self, sizes):
        members = defaultdict(list)
        for j, factor in enumerate(self._factors):
            for name in FACTORS:
                own = name in self._quantities
                own = own and prefers_rows(sizes, factor.positions, _width(factor, name))
                if own or self._gradient_on_rows[j]:
                    members[factor.positions, name].append(j)
        return {
            (positions, name): _RowStack(
                tuple(layers),
                tf.stack([_row_gram(getattr(self._factors[j], name)) for j in layers]),
                positions,
            )
            for (positions, name), layers in members.items()
        }

    def _on_rows(self, rows):
        found = []
        roots = {}
        grams = {key: stack.block(rows) for key, stack in self._stacks.items()}
        for (positions, quantity), stack in self._stacks.items():
            names = [(j, quantity) for j in stack.layers]
            gram = grams[positions, quantity]
            if quantity == "activation" and any(self._gradient_on_rows[j] for j in stack.layers):
                solved, roots[positions] = _solved_with_roots(names, gram)
            else:
                solved = _solved(names, gram)
            found.append(solved)
        return found + [self._gradients(key, root, grams) for key, root in roots.items()]

    def _gradients(self, positions, root, grams):
        a, d = (self._stacks[positions, name].layers for name in FACTORS)
        layers = [j for j in a if self._gradient_on_rows[j]]
        left, middle = _picked(root, a, layers), _picked(grams[positions, "adjoint"], d, layers)
        product = tf.matmul(tf.matmul(left, middle, transpose_a=True), left)
        return _solved([(j, "gradient") for j in layers], product)

    def _on_features(self, rows, done):
        stacks = defaultdict(list)
        for j, factor in enumerate(self._factors):
            for quantity in self._quantities:
                if (j, quantity) not in done:
                    gram = _small_gram(factor, quantity, rows)
                    stacks[gram.shape[-1]].append(((j, quantity), gram))
        return [
            _solved([name for name, _ in stack], tf.stack([gram for _, gram in stack]))
            for stack in stacks.values()
        ]


def _solved(names, gram):
    """Return the `Spectra` of matrices with the Gram matrices `[p, g, d, d]`."""
    safe, finite, norm = _checked(gram)
    return Spectra(tuple(names), _roots_of(tf.linalg.eigvalsh(safe), finite), norm)


def _solved_with_roots(names, gram):
    """Return what `_solved` does, and `L [p, g, d, d]` with `L Lᵀ` the Gram matrix."""
    safe, finite, norm = _checked(gram)
    values, vectors = tf.linalg.eigh(safe)
    root = vectors * tf.sqrt(tf.maximum(values, 0.0))[..., None, :]
    nan_where_unknown = tf.where(finite, tf.ones_like(norm), _nan())
    return Spectra(tuple(names), _roots_of(values, finite), norm), root * nan_where_unknown[
        ..., None, None
    ]


def _checked(gram):
    # `eigvalsh` raises on NaN, which would end the user's training: solve zeros, answer NaN.
    energy = tf.linalg.trace(gram)
    finite = tf.math.is_finite(energy)
    safe = tf.where(finite[..., None, None], gram, 0.0)
    return safe, finite, tf.where(finite, tf.sqrt(tf.maximum(energy, 0.0)), _nan())


def _roots_of(eigenvalues, finite):
    sigma = tf.reverse(tf.sqrt(tf.maximum(eigenvalues, 0.0)), axis=[-1])
    return tf.where(finite[..., None], sigma, _nan())


def _nan():
    return tf.constant(float("nan"), tf.float64)


def _row_gram(x):
    flat = tf.reshape(tf.cast(x, tf.float64), [-1, x.shape[-1]])
    return tf.matmul(flat, flat, transpose_b=True)


def _small_gram(factor, quantity, rows):
    matrix = group_matrix(factor, quantity, rows)
    wide = quantity == "gradient" and matrix.shape[-2] < matrix.shape[-1]
    return tf.matmul(matrix, matrix, transpose_a=not wide, transpose_b=wide)


def _picked(stack, present, wanted):
    if tuple(present) == tuple(wanted):
        return stack
    return tf.gather(stack, [present.index(j) for j in wanted])


def _width(factor, name):
    return factor.widths[FACTORS.index(name)]


def _gradient_on_rows(factor, sizes):
    return (
        factor.example_gradients is None
        and all(prefers_rows(sizes, factor.positions, width) for width in factor.widths)
        and prefers_rows_for_gradient(sizes, factor.positions, *factor.widths)
    )
