"""Which groups a report compares."""

import itertools
from dataclasses import dataclass, field

import pandas as pd

from keras_spectral.analysis.compare import comparison as compared
from keras_spectral.analysis.pairing import SERIES
from keras_spectral.errors import ComparisonError
from keras_spectral.groups import ALL

MOST_PAIRS = 6
VALUES = [f"{kind}_{end}" for kind in ("value", "corrected") for end in ("a", "b")]


@dataclass(frozen=True)
class Pairs:
    """Comparisons of a report.

    Attributes:
        tables: Results of `compare_groups`, one per pair.
        left_out: Texts that say which pairs were not compared, and why.
    """

    tables: list[pd.DataFrame] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    @property
    def names(self):
        """List of `(a, b)`, one per table."""
        return [(table["group_a"].iloc[0], table["group_b"].iloc[0]) for table in self.tables]


def report_comparisons(log, comparison=None, a=None, b=None):
    """Return the comparisons of a report.

    Args:
        log: A `SpectralLog`.
        comparison: Result of `compare_groups`, or several concatenated, or `None`.
        a: Group label, or `None`.
        b: Group label, or `None`.

    Returns:
        A `Pairs`.

    Raises:
        ComparisonError: If the chosen groups cannot be compared, or `comparison` is not a result
            of `compare_groups`.
    """
    if comparison is not None:
        return _given(comparison)
    if a is not None:
        return Pairs([compared(log, a, b)])
    wanted = natural_pairs(log.groups)
    result = Pairs(
        left_out=[
            f"{a} against {b}: only {MOST_PAIRS} pairs are compared by default"
            for a, b in wanted[MOST_PAIRS:]
        ]
    )
    for first, second in wanted[:MOST_PAIRS]:
        try:
            result.tables.append(compared(log, first, second))
        except ComparisonError as error:
            result.left_out.append(f"{first} against {second}: {error}")
    return result


def natural_pairs(groups):
    """Return pairs of groups that are alternatives: the same factor, or no factor named.

    Args:
        groups: Group labels, such as `sex=F`.

    Returns:
        List of `(a, b)`.

    Example:
        >>> natural_pairs(["all", "sex=F", "sex=M", "dx=HC", "dx=SZ"])
        [('sex=F', 'sex=M'), ('dx=HC', 'dx=SZ')]
    """
    pairs = list(itertools.combinations([group for group in groups if group != ALL], 2))
    factors = [[label.rpartition("=")[0] for label in pair] for pair in pairs]
    return [pair for pair, (first, second) in zip(pairs, factors, strict=True) if first == second]


def _given(comparison):
    needed = {"group_a", "group_b", *SERIES, "summary", *VALUES, "z", "p", "p_adjusted", "null"}
    if not isinstance(comparison, pd.DataFrame) or needed - set(comparison):
        raise ComparisonError(
            "`comparison` must be a result of `compare_groups`. "
            f"Received: {type(comparison).__name__}. Try `comparison=None`."
        )
    groups = comparison.groupby(["group_a", "group_b"], sort=False)
    return Pairs([table.reset_index(drop=True) for _, table in groups])
