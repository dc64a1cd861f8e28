"""Spectra of several matrices that were solved together.

Letters: `m` matrix, `d` singular values, `b` block (one group, or the whole batch, of one record),
`p` matrices of a block.
"""

from typing import Any, NamedTuple

import numpy as np

WHOLE = 0
"""The group number of the whole batch; the groups are counted from 1."""


class Solved(NamedTuple):
    """Spectra of `m` matrices.

    Attributes:
        wanted: Integer array `[m]`, the place of each matrix in the `wanted` of its stack.
        records: Integer array `[m]`, the record of each matrix.
        groups: Integer array `[m]`, its group, `WHOLE` for the whole batch.
        sigma: float64 array `[m, d]`, singular values, largest first; rounding noise around zero
            beyond a matrix' rank bound, NaN where it holds a NaN or Inf.
        norm: float64 array `[m]`, the Frobenius norms, likewise NaN.
        residual: float64 array `[m]`, the Frobenius norms of what was missed, likewise NaN, or 0.
    """

    wanted: Any
    records: Any
    groups: Any
    sigma: Any
    norm: Any
    residual: Any = 0.0


def of_each_matrix(wanted, records, groups):
    """Return `wanted`, `records` and `groups` of each matrix of some blocks.

    Args:
        wanted: Integer array `[p]`.
        records: Integer array `[b]`.
        groups: Integer array `[b]`.

    Returns:
        Integer array `[3, b p]`, block by block.
    """
    places = np.empty((3, len(records), len(wanted)), dtype=int)
    places[0], places[1], places[2] = wanted, records[:, None], groups[:, None]
    return places.reshape(3, -1)
