"""Which examples of a batch are in which group.

Letters: `n` example, `g` group. Group 0 is the whole batch, always.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True, eq=False)
class Members:
    """Groups of one batch.

    Attributes:
        mask: Boolean array `[n, g]`, whose first column, the whole batch, is all true.
    """

    mask: np.ndarray

    @classmethod
    def of(cls, groups):
        """Return the `Members` of a batch.

        Args:
            groups: Boolean array `[n, g - 1]`, the groups without the whole batch.
        """
        return cls(np.concatenate([np.ones((len(groups), 1), bool), groups], axis=1))

    @property
    def n(self):
        """Number of examples."""
        return self.mask.shape[0]

    @property
    def n_groups(self):
        """Number of groups `g`, the whole batch included."""
        return self.mask.shape[1]

    @cached_property
    def sizes(self):
        """Integer array `[g]`, the number of examples of each group."""
        return self.mask.sum(axis=0)

    @cached_property
    def divide(self):
        """Whether the groups after the first partition the batch."""
        return self.n_groups > 1 and bool((self.mask[:, 1:].sum(axis=1) == 1).all())

    def examples(self, g):
        """Return the numbers of the examples of a group.

        Args:
            g: Number of the group.

        Returns:
            Integer array, or `None` if all examples are in it.
        """
        return None if self.sizes[g] == self.n else np.flatnonzero(self.mask[:, g])
