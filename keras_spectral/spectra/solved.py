"""Spectra of several matrices that were solved together.

Letters: `b` block (one group, or the whole batch, of one record), `p` matrices of a block, `d`
singular values.
"""

from typing import Any, NamedTuple

WHOLE = 0
"""The group number of the whole batch; the groups are counted from 1."""


class Solved(NamedTuple):
    """Spectra of `p` matrices of each of `b` blocks.

    Attributes:
        names: Tuple of `p` pairs `(weight index, quantity)`.
        records: Integer array `[b]`, the record of each block.
        groups: Integer array `[b]`, the group of each block, `WHOLE` for the whole batch.
        sigma: float64 array `[b, p, d]`, singular values, largest first; rounding noise around
            zero beyond a matrix' rank bound, NaN where it holds a NaN or Inf.
        norm: float64 array `[b, p]`, the Frobenius norms, likewise NaN.
    """

    names: tuple
    records: Any
    groups: Any
    sigma: Any
    norm: Any
