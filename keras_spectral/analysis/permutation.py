"""Permutation inference on a table of statistics.

Letters: `m` hypothesis (a row of the table), `j` labelling. Everywhere `values` has shape
`[m, j]`, with the observed labelling at `j = 0` and permutations after it, NaN where a labelling
has no value. Under the null hypothesis the columns are exchangeable, and every p-value here is
exact because it treats all columns alike. Ties within `tolerance` `[m]` count as equal.
"""

import numpy as np
from scipy.stats import false_discovery_control


def permutation_p(values, tolerance):
    """Return the share of labellings at least as far from their mean as the observed one.

    The mean is taken over all labellings, the observed one included, so that the test is
    two-sided and exact without assuming a null mean of zero: groups of different sizes have none.

    Args:
        values: Array `[m, j]`, observed labelling first.
        tolerance: Array `[m]`, differences below which values are ties.

    Returns:
        Array `[m]` of p-values in `[1 / j, 1]`; NaN without an observed or any permuted value.

    Example:
        >>> permutation_p(np.array([[3.0, 0.0, -1.0, -2.0]]), np.zeros(1))
        array([0.25])

    Source: Phipson and Smyth, "Permutation p-values should never be zero", Stat. Appl. Genet.
    Mol. Biol. 9(1), 2010.
    """
    distance = np.abs(values - known_mean(values)[:, None])
    extreme = distance >= distance[:, :1] - tolerance[:, None]
    count = (~np.isnan(values)).sum(axis=1)
    return np.where(_testable(values), extreme.sum(axis=1) / np.maximum(count, 1), np.nan)


def z_scores(values, tolerance):
    """Return how many standard deviations the observed value lies above the permuted mean.

    Args:
        values: Array `[m, j]`, observed labelling first.
        tolerance: Array `[m]`; a standard deviation not above it counts as 0.

    Returns:
        Array `[m]`; NaN where fewer than two permutations have a value or all are equal.
    """
    null = values[:, 1:]
    spread = _deviation(null, ddof=1)
    known = spread > tolerance
    return (values[:, 0] - known_mean(null)) / np.where(known, spread, np.nan)


def max_t_adjusted_p(values, tolerance):
    """Return p-values adjusted for the whole table: single-step maximum of standardised values.

    Rejecting where the adjusted p-value is at most 0.05 makes any false rejection in the whole
    table no more likely than 5 %, whatever the dependence between rows.

    Args:
        values: Array `[m, j]`, observed labelling first.
        tolerance: Array `[m]`; rows with a smaller standard deviation get 1 and do not enter the
            maximum.

    Returns:
        Array `[m]`, at least `permutation_p`; NaN where that is NaN.

    Source: Westfall and Young, "Resampling-Based Multiple Testing", Wiley 1993, algorithm 2.5.
    """
    p = permutation_p(values, tolerance)
    spread = _deviation(values, ddof=0)
    tested = (spread > tolerance) & ~np.isnan(p)
    if not tested.any():
        return p
    score = np.abs(values - known_mean(values)[:, None])[tested] / spread[tested, None]
    score = score[:, ~np.isnan(score).all(axis=0)]  # without labellings that have no value
    largest = np.nan_to_num(score, nan=-np.inf).max(axis=0)
    slack = (tolerance[tested] / spread[tested])[:, None]
    adjusted = p.copy()
    adjusted[tested] = (largest[None, :] >= score[:, :1] - slack).mean(axis=1)
    return np.fmax(adjusted, p)


def false_discovery_rates(p):
    """Return Benjamini-Hochberg q-values.

    Args:
        p: Array `[m]` of p-values; NaN is no hypothesis and stays NaN.

    Returns:
        Array `[m]` of q-values.

    Example:
        >>> false_discovery_rates(np.array([0.01, 0.04, np.nan, 0.03]))
        array([0.03, 0.04,  nan, 0.04])

    Source: Benjamini and Hochberg, "Controlling the false discovery rate", J. R. Stat. Soc. B
    57(1), 1995.
    """
    q = np.full(len(p), np.nan)
    known = ~np.isnan(p)
    q[known] = false_discovery_control(p[known])
    return q


def known_mean(values, axis=-1):
    """Return the mean over an axis without NaN; NaN where all values are NaN."""
    known = ~np.isnan(values)
    total = np.where(known, values, 0.0).sum(axis=axis)
    count = known.sum(axis=axis)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _deviation(values, ddof):
    squares = known_mean((values - known_mean(values)[:, None]) ** 2)
    count = (~np.isnan(values)).sum(axis=1)
    return np.sqrt(np.where(count > ddof, squares * count / np.maximum(count - ddof, 1), np.nan))


def _testable(values):
    return ~np.isnan(values[:, 0]) & (~np.isnan(values[:, 1:])).any(axis=1)
