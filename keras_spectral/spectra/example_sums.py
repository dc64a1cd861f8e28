"""Parts of every example, of which groups are sums: cheaper where groups outnumber examples.

Letters: `n` example, `g` group, `r` record, `c` groups solved together.

Gram matrices of features and gradients are sums over examples. With more groups than examples, as
permutations make, it costs less to keep a part for each example and to add them up later, than to
multiply the rows of each group.
"""

from dataclasses import dataclass

import numpy as np

from keras_spectral.spectra.eigen import singular_values
from keras_spectral.spectra.kept_by_group import joined_steps
from keras_spectral.spectra.kept_factors import kept_steps, n_tensors
from keras_spectral.spectra.solved import WHOLE, Solved

CHUNK_BYTES = 32_000_000
"""The sums of groups that are solved together hold about this many bytes, or are those of one."""


@dataclass(frozen=True)
class ExampleSums:
    """One matrix, named by the one pair of `wanted`.

    The parts, float64 `[n, …, …]`, are the Gram matrix of each example's activation or adjoint, or
    the gradient through each example. A step keeps them, or the factors that they are made of.

    Attributes:
        wanted: Tuple of one pair `(weight index, quantity)`.
        factors: Tuple of `KeptFactor`; none if the step keeps the parts.
    """

    wanted: tuple
    factors: tuple = ()

    @property
    def n_kept(self):
        """Number of tensors that a step keeps."""
        return n_tensors(self.factors) or 1

    @property
    def is_gradient(self):
        """Whether the parts are gradients, else they are Gram matrices."""
        return self.wanted[0][1] == "gradient"

    def condensed(self, kept, masks):
        """Return the parts of `r` steps, in one array `[r, n, …, …]`."""
        del masks
        if not self.factors:
            return joined_steps(kept[0])
        steps = kept_steps(self.factors, kept)
        return joined_steps([step.products_of_examples(*self.wanted[0]) for step in steps])

    def solved(self, condensed, mask):
        """Find the spectra of the whole batch and of every group present.

        Args:
            condensed: float64 array `[r, n, …, …]`.
            mask: Boolean array `[r, n, g]`.

        Yields:
            `Solved`.
        """
        size = max(1, CHUNK_BYTES // condensed[0, 0].nbytes)
        for record, (parts, own) in enumerate(zip(condensed, mask, strict=True)):
            members = np.concatenate([np.ones((len(own), 1)), own], axis=1)
            present = np.flatnonzero(members.any(axis=0))  # the whole batch, `WHOLE`, first
            for begin in range(WHOLE, len(present), size):
                groups = present[begin : begin + size]
                places = np.zeros_like(groups), np.full_like(groups, record), groups
                yield Solved(*places, *singular_values(self._grams(parts, members[:, groups])))

    def _grams(self, parts, members):
        """Return Gram matrices `[c, …, …]` of groups, from members `[n, c]`."""
        bad = ~np.isfinite(parts).all(axis=(1, 2))  # else nothing times it would be NaN
        parts = np.where(bad[:, None, None], 0.0, parts) if bad.any() else parts
        sums = (members.T @ parts.reshape(len(parts), -1)).reshape(-1, *parts.shape[1:])
        sums[bad @ members > 0] = np.nan
        if not self.is_gradient:
            return sums
        turned = sums.swapaxes(-1, -2)
        return turned @ sums if sums.shape[1] >= sums.shape[2] else sums @ turned
