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
    """Row-by-row Gram matrices `[p, n s, n s]` of factors with the same number of positions."""

    names: list[tuple[int, str]]
    gram: Any
    positions: Any

    def block(self, rows):
        """Return the Gram matrices `[p, g, d, d]` of the whole batch or of the groups."""
        if rows is None:
            return self.gram[:, None]
        return rows.principal_blocks(self.gram, self.positions)


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
        on_rows = [solved for stack in self._stacks for solved in self._on_rows(stack, rows)]
        done = {name for solved in on_rows for name in solved.names}
        return on_rows + self._on_features(rows, done)

    def _row_stacks(self, sizes):
        names = defaultdict(list)
        for name in FACTORS:
            for j, factor in enumerate(self._factors):
                wanted = name in self._quantities
                wanted = wanted and prefers_rows(sizes, factor.positions, _width(factor, name))
                if wanted or self._gradient_on_rows[j]:
                    names[factor.positions].append((j, name))
        return [
            _RowStack(
                found, tf.stack([_row_gram(getattr(self._factors[j], f)) for j, f in found]), s
            )
            for s, found in names.items()
        ]

    def _on_rows(self, stack, rows):
        # Activations and adjoints are solved in one call, the gradients in a second one.
        gram = stack.block(rows)
        layers = [j for j, name in stack.names if name == "adjoint" and self._gradient_on_rows[j]]
        if not layers:
            return [_solved(stack.names, gram)]
        solved, root = _solved_with_roots(stack.names, gram)
        left = _picked(root, stack.names, [(j, "activation") for j in layers])
        middle = _picked(gram, stack.names, [(j, "adjoint") for j in layers])
        product = tf.matmul(tf.matmul(left, middle, transpose_a=True), left)
        gradients = _solved([(j, "gradient") for j in layers], product)
        return [*self._only_wanted(solved), gradients]

    def _only_wanted(self, solved):
        kept = [name for name in solved.names if name[1] in self._quantities]
        if not kept:
            return []
        sigma, norm = (_picked(part, solved.names, kept) for part in (solved.sigma, solved.norm))
        return [Spectra(tuple(kept), sigma, norm)]

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


def _picked(stack, names, wanted):
    if list(names) == list(wanted):
        return stack
    places = [list(names).index(name) for name in wanted]
    if places == list(range(places[0], places[-1] + 1)):
        return stack[places[0] : places[-1] + 1]
    return tf.gather(stack, places)


def _width(factor, name):
    return factor.widths[FACTORS.index(name)]


def _gradient_on_rows(factor, sizes):
    return (
        factor.example_gradients is None
        and all(prefers_rows(sizes, factor.positions, width) for width in factor.widths)
        and prefers_rows_for_gradient(sizes, factor.positions, *factor.widths)
    )
