"""Values of two groups under the observed labels and under every permutation of them.

Letters: `m` series (layer, weight, quantity), `u` run, `t` moment (epoch, step), `j` labelling
(0 is the observed one, the others are permutations), and a last axis of 2 for groups `a`, `b`.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from keras_spectral.analysis.permutation import known_mean
from keras_spectral.errors import ComparisonError
from keras_spectral.groups import ALL
from keras_spectral.log.summary import size_corrected_norms
from keras_spectral.summaries import NORMS

SERIES = ["layer", "weight", "quantity"]
MOMENT = ["epoch", "step"]
SIZES = ["n_examples", "batch_size", "n_rows"]
CORRECTED = "corrected_"
TIE = 1e-6
"""Differences below `TIE` times the compared values are rounding errors of float32 networks."""


@dataclass(frozen=True)
class Pairing:
    """Records of two groups, under the observed labels and under every permutation.

    Attributes:
        records: DataFrame with one row per spectrum: sizes, summaries, and size-corrected norms
            in columns that begin with `corrected_`.
        place: Integer array, the index of each record in a flat array of `shape`.
        series: DataFrame `[m, 3]`: layer, weight, quantity.
        runs: List of `u` run labels.
        moments: DataFrame `[t, 2]`: epoch, step, ascending.
        labellings: Array `[j]`: 0, then the permutations that all runs share.
    """

    records: pd.DataFrame
    place: np.ndarray
    series: pd.DataFrame
    runs: list
    moments: pd.DataFrame
    labellings: np.ndarray

    @property
    def shape(self):
        """Lengths of the axes `(m, u, t, j, 2)`."""
        axes = (self.series, self.runs, self.moments, self.labellings)
        return (*(len(axis) for axis in axes), 2)

    def values(self, column):
        """Return a column of the records where both groups have a value.

        Args:
            column: A summary, a size, or a summary with `corrected_` before it.

        Returns:
            Array `[m, u, t, j, 2]`, NaN where either group was absent or has no value.
        """
        values = np.full(int(np.prod(self.shape)), np.nan)
        values[self.place] = self.records[column].to_numpy(dtype=float)
        values = values.reshape(self.shape)
        values[np.isnan(values).any(axis=-1)] = np.nan
        return values

    def tested(self, summary):
        """Return the values that are tested: size-corrected for norms, as they are for ranks.

        Args:
            summary: Name of a summary.

        Returns:
            Array `[m, u, t, j, 2]`.
        """
        return self.values(CORRECTED + summary if summary in NORMS else summary)


def pairing(log, a, b, summaries, steps=None, **keys):
    """Return the records of two groups of a log, at the steps where permutations were recorded.

    If the log has permutations of both groups, only the runs and steps at which these were
    recorded are used, so that observed and permuted values are means over the same moments.

    Args:
        log: A `SpectralLog`.
        a: Group label.
        b: Another group label.
        summaries: Names of summaries.
        steps: Steps to use; `None` uses all.
        **keys: Keys to select by, see `SpectralLog.select`; `None` selects all.

    Returns:
        A `Pairing`.

    Raises:
        ComparisonError: If these are not two groups of the log, or no step has both of them.
        LogError: If a run, layer or quantity does not occur.
    """
    _require_two_groups(log, a, b)
    chosen = log.select(group=[a, b], **{key: v for key, v in keys.items() if v is not None})
    permuted = _shared_permutations(chosen.permutations, a, b)
    observed = chosen.summary(*summaries).assign(permutation=0)
    if len(permuted):
        observed = _at_moments_of(observed, permuted)
    columns = ["run", *MOMENT, *SERIES, "group", "permutation", *SIZES, *summaries]
    records = pd.concat([observed[columns], permuted[columns]], ignore_index=True)
    if steps is not None:
        records = records[records["step"].isin(steps)].reset_index(drop=True)
    result = _arranged(_with_corrections(records, summaries), a)
    _require_met(result, a, b, steps, permuted)
    return result


def mean_over_moments_and_runs(values):
    """Return means over moments, then over runs, so that every run weighs the same.

    Args:
        values: Array `[m, u, t, …]`, NaN where absent.

    Returns:
        Array `[m, …]`.
    """
    return mean_over_runs(known_mean(values, axis=2)[:, :, None])[:, 0]


def mean_over_runs(values):
    """Return means over runs.

    Args:
        values: Array `[m, u, t, …]`, NaN where absent.

    Returns:
        Array `[m, t, …]`.
    """
    return known_mean(values, axis=1)


def _require_two_groups(log, a, b):
    if not len(log):
        raise ComparisonError(
            "`log` must hold spectra to be compared. Received: an empty log. "
            "Try `model.fit(…, groups=…)` first."
        )
    missing = [group for group in (a, b) if group not in log.groups]
    if missing:
        raise ComparisonError(
            f"`a` and `b` must be groups of the log. Received: a={a!r}, b={b!r}. "
            f"Try two of {log.groups}."
        )
    if a == b:
        raise ComparisonError(
            f"`a` and `b` must be different groups. Received: {a!r} twice. Try two of {log.groups}."
        )


def _shared_permutations(table, a, b):
    if ALL in (a, b) or set(table["group"].unique()) < {a, b}:
        return table.iloc[:0]
    per_run = table.groupby("run")["permutation"].unique()
    shared = set.intersection(*(set(numbers) for numbers in per_run))
    # A run that was continued with fewer permutations: only those that all its moments have.
    everywhere = table.groupby(["run", *MOMENT])["permutation"].max().min()
    return table[table["permutation"].isin(shared) & (table["permutation"] <= everywhere)]


def _at_moments_of(observed, permuted):
    keys = ["run", *MOMENT]
    return observed.merge(permuted[keys].drop_duplicates(), on=keys)


def _with_corrections(records, summaries):
    norms = [name for name in summaries if name in NORMS]
    corrected = size_corrected_norms(records)[norms].add_prefix(CORRECTED)
    return pd.concat([records, corrected], axis=1)


def _arranged(records, a):
    axes = [
        _codes(records, SERIES, sort=False),
        _codes(records, ["run"], sort=False),
        _codes(records, MOMENT, sort=True),
        _codes(records, ["permutation"], sort=True),
    ]
    codes, (series, runs, moments, labellings) = zip(*axes, strict=True)
    side = (records["group"] != a).to_numpy(dtype=int)
    shape = (len(series), len(runs), len(moments), len(labellings), 2)
    place = np.ravel_multi_index((*codes, side), shape) if len(records) else side
    numbers = labellings["permutation"].to_numpy()
    return Pairing(records, place, series, list(runs["run"]), moments, numbers)


def _codes(records, keys, sort):
    codes = records.groupby(keys, sort=sort).ngroup().to_numpy()
    labels = records[keys].iloc[np.unique(codes, return_index=True)[1]].reset_index(drop=True)
    return codes, labels


def _require_met(result, a, b, steps, permuted):
    observed = (result.labellings[:1] == 0).all() and len(result.records)
    if observed and not np.isnan(result.values("n_examples")[:, :, :, 0]).all():
        return
    remedy = "Try larger batches, or `ks.introspect` on all examples at once."
    if steps is not None:
        recorded = sorted(permuted["step"].unique().tolist()) if len(permuted) else []
        remedy = "Try `steps=None`" + (f", or some of {recorded[:20]}." if recorded else ".")
    raise ComparisonError(
        "Two groups must both be present in a recorded step to be compared. "
        f"Received: a={a!r}, b={b!r}, steps={steps!r}, no step with both"
        + (" at which permutations were recorded. " if len(permuted) else ". ")
        + remedy
    )
