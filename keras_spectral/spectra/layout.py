"""What is recorded at each step, in which order, and how its spectra are found."""

from typing import NamedTuple

import numpy as np

from keras_spectral.spectra.subspace import Subspaces


class Weight(NamedTuple):
    """One weight of a layout.

    Attributes:
        path: Path of its layer.
        name: Its name in the layer.
        widths: Dictionary items `(quantity, features)` of what is recorded of it: the largest
            number of singular values that the features allow.
        bounded_by_rows: Whether its gradient is a sum over rows of rank one, so that its rank is at
            most their number.
    """

    path: str
    name: str
    widths: tuple
    bounded_by_rows: bool


class Layout(NamedTuple):
    """What is recorded at each step, and in which order.

    Attributes:
        weights: Tuple of `Weight`.
        top_k: Largest number of singular values kept, or `None`.
        stacks: What `spectra.stacks.stacks_for` chose.
    """

    weights: tuple
    top_k: int | None
    stacks: tuple

    @property
    def is_exact(self):
        """Whether no matrix is known in a subspace only."""
        return not any(isinstance(stack, Subspaces) for stack in self.stacks)

    @property
    def series(self):
        """Tuple of `(weight index, quantity)`, in the order of the log."""
        return tuple((j, q) for j, weight in enumerate(self.weights) for q, _ in weight.widths)

    def n_rows(self, heads, sizes):
        """Return the rows of each matrix. A gradient is said to have those of the adjoint.

        Args:
            heads: Integer array `[r, 2 + 2 j]`: `step, epoch`, and the positions of activation and
                adjoint of each weight, at `r` steps.
            sizes: Integer array `[r, g]`, the examples of the whole batch and of each group.

        Returns:
            Integer array `[r, series, g]`.
        """
        positions = heads[:, [2 + 2 * j + (q != "activation") for j, q in self.series]]
        return sizes[:, None, :] * positions[:, :, None]

    def n_kept(self, n_rows):
        """Return how many singular values are kept: at most all that there are.

        Args:
            n_rows: Integer array `[r, series, g]`.

        Returns:
            `(kept, bounds)`: integer arrays like `n_rows`, with and without `top_k`.
        """
        widths = np.array([width for weight in self.weights for _, width in weight.widths])
        bounds = np.broadcast_to(widths[:, None], n_rows.shape)
        by_rows = [q != "gradient" or self.weights[j].bounded_by_rows for j, q in self.series]
        bounds = np.where(np.array(by_rows)[:, None], np.minimum(n_rows, bounds), bounds)
        return np.minimum(bounds, self.top_k or bounds.max()), bounds
