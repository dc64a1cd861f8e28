"""What is recorded at each step, in which order, and how its spectra are found."""

from typing import NamedTuple

import numpy as np


class Layout(NamedTuple):
    """What is recorded at each step, and in which order.

    Attributes:
        weights: Tuple of `(layer path, weight name, i, o)`.
        quantities: The recorded quantities.
        top_k: Largest number of singular values kept, or `None`.
        stacks: What `spectra.stacks.stacks_for` chose.
    """

    weights: tuple
    quantities: tuple
    top_k: int | None
    stacks: tuple

    @property
    def series(self):
        """Tuple of `(weight index, quantity)`, in the order of the log."""
        return tuple((j, q) for j in range(len(self.weights)) for q in self.quantities)

    @property
    def widths(self):
        """Largest number of singular values that the features allow, for each series."""
        limits = {"activation": lambda i, o: i, "adjoint": lambda i, o: o, "gradient": min}
        return np.array([limits[q](*self.weights[j][2:]) for j, q in self.series])

    def n_rows(self, heads, sizes):
        """Return the rows of each matrix.

        Args:
            heads: Integer array `[r, 2 + j]`: `step, epoch`, and the shared positions of each
                weight, at `r` steps.
            sizes: Integer array `[r, g]`, the examples of the whole batch and of each group.

        Returns:
            Integer array `[r, series, g]`.
        """
        positions = heads[:, [2 + j for j, _ in self.series]]
        return sizes[:, None, :] * positions[:, :, None]

    def n_kept(self, n_rows):
        """Return how many singular values are kept: at most all that there are.

        Args:
            n_rows: Integer array `[r, series, g]`.

        Returns:
            `(kept, bounds)`: integer arrays like `n_rows`, with and without `top_k`.
        """
        bounds = np.minimum(n_rows, self.widths[:, None])
        return np.minimum(bounds, self.top_k or bounds.max()), bounds
