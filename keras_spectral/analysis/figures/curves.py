"""The values that figures draw: one per step, averaged in blocks where there are many steps."""

import numpy as np
import pandas as pd

from keras_spectral.analysis.labels import series_names
from keras_spectral.errors import LogError
from keras_spectral.groups import ALL
from keras_spectral.log.summary import size_corrected_norms
from keras_spectral.summaries import size_correction

MAX_POINTS = 120
"""More steps than this are drawn as means of consecutive steps."""


def drawn_series(log, quantity, layers, limit, ranks=False):
    """Return the recorded weights to draw, one panel each.

    Args:
        log: A `SpectralLog`.
        quantity: Quantity to draw.
        layers: Layer path, list of them, or `None` for all.
        limit: Largest number of panels with `layers=None`; they are spread evenly over the model.
        ranks: With `layers=None`, leave out vectors, such as a bias, whose rank is 1 at all times.

    Returns:
        The tuple `(list of (layer, weight, title), note)`; the note is empty if all are drawn.

    Raises:
        LogError: If the quantity or a layer does not occur.
    """
    keys = {"quantity": quantity} | ({} if layers is None else {"layer": layers})
    chosen = log.select(**keys)
    rows = chosen.rows
    if ranks and layers is None:
        is_matrix = np.isfinite(chosen.sigma[:, 1:]).any(axis=1)
        is_matrix = pd.Series(is_matrix, rows.index).groupby([rows["layer"], rows["weight"]])
        is_matrix = is_matrix.transform("any")
        rows = rows[is_matrix] if is_matrix.any() else rows
    pairs = list(rows[["layer", "weight"]].drop_duplicates().itertuples(index=False, name=None))
    series = [(*pair, title) for pair, title in zip(pairs, series_names(pairs), strict=True)]
    if layers is not None or len(series) <= limit:
        return series, ""
    drawn = np.unique(np.linspace(0, len(series) - 1, limit).round().astype(int))
    return [
        series[j] for j in drawn
    ], f"{limit} of {len(series)} weights shown; choose by `layers=`"


def drawn_groups(log, groups):
    """Return the group labels to draw, checked.

    Args:
        log: A `SpectralLog`.
        groups: Group label, list of them, or `None`: every group, or `all` if there is no other.

    Returns:
        List of labels.

    Raises:
        LogError: If a group does not occur.
    """
    if groups is None:
        return [group for group in log.groups if group != ALL] or [ALL]
    chosen = [groups] if isinstance(groups, str) else list(groups)
    missing = [group for group in chosen if group not in log.groups]
    if missing or not chosen:
        raise LogError(
            f"`groups` must be groups of the log. Received: groups={groups!r}. "
            f"Try some of {log.groups}."
        )
    return chosen


def summary_points(log, summary, size_corrected):
    """Return one value per recorded spectrum.

    Args:
        log: A `SpectralLog`.
        summary: Name of a summary.
        size_corrected: Whether norms are multiplied by `size_correction`.

    Returns:
        DataFrame with keys and a column `value_1`.
    """
    return log.summary(summary, size_corrected=size_corrected).rename(columns={summary: "value_1"})


def singular_value_points(log, k, size_corrected):
    """Return the `k` largest singular values of every recorded spectrum.

    Args:
        log: A `SpectralLog`.
        k: Positive integer.
        size_corrected: Whether they are multiplied by `size_correction`.

    Returns:
        DataFrame with keys and columns `value_1 … value_k`, NaN beyond a spectrum's length.
    """
    rows, sigma = log.rows, log.sigma[:, :k]
    if size_corrected:
        columns = ("quantity", "n_examples", "batch_size", "n_rows")
        sigma = sigma * size_correction(*(rows[column] for column in columns))[:, None]
    names = [f"value_{j}" for j in range(1, sigma.shape[1] + 1)]
    return pd.concat([rows, pd.DataFrame(sigma, columns=names, index=rows.index)], axis=1)


def permuted_points(log, summary, size_corrected):
    """Return one value per record of a permuted group.

    Args:
        log: A `SpectralLog`.
        summary: Name of a summary.
        size_corrected: Whether norms are multiplied by `size_correction`.

    Returns:
        DataFrame with keys, `permutation` and a column `value_1`.
    """
    table = log.permutations
    if size_corrected and len(table):
        table = size_corrected_norms(table)
    return table.rename(columns={summary: "value_1"})


def thinned(points, steps):
    """Return points whose steps are replaced by the mean step of their block, if there are many.

    Args:
        points: DataFrame with a column `step`.
        steps: All recorded steps, ascending.

    Returns:
        The tuple `(DataFrame, approximate number of recorded steps in a block)`.
    """
    if len(steps) <= MAX_POINTS or not len(points):
        return points, 1
    blocks = pd.Series(steps, index=steps, dtype=float)
    number = np.arange(len(steps)) * MAX_POINTS // len(steps)
    blocks = blocks.groupby(number).transform("mean")
    return points.assign(step=points["step"].map(blocks)), round(len(steps) / MAX_POINTS)


def by_run(points, column="value_1"):
    """Return one series and group as a table of steps and runs.

    Args:
        points: DataFrame of one series and group.
        column: Value column.

    Returns:
        DataFrame: steps in the index, one column per run.
    """
    return points.pivot_table(index="step", columns="run", values=column, aggfunc="mean")


def mean_curve(table, common_steps):
    """Return the mean of the runs at the steps that all of them recorded.

    Args:
        table: Result of `by_run`.
        common_steps: Steps that every run recorded.

    Returns:
        Series by step.
    """
    return table[table.index.isin(common_steps)].mean(axis=1)


def common_steps(points):
    """Return the steps that every run recorded.

    Args:
        points: DataFrame with `run` and `step`.

    Returns:
        List of steps, ascending.
    """
    runs = points.groupby("step")["run"].nunique()
    return runs.index[runs == points["run"].nunique()].tolist()


def permutation_bands(permuted, steps, low=0.025, high=0.975):
    """Return the quantiles of permuted groups at each step, of their means over runs.

    Args:
        permuted: Result of `permuted_points`, thinned like the curve of the real groups.
        steps: Steps to keep.
        low: Lower quantile over permutations.
        high: Upper quantile over permutations.

    Returns:
        Dictionary from `(layer, weight, group)` to a DataFrame with steps in the index and columns
        `low` and `high`.
    """
    keys = ["layer", "weight", "group", "step"]
    at_steps = permuted[permuted["step"].isin(steps)]
    per_run = at_steps.groupby([*keys, "permutation", "run"])["value_1"].mean()
    means = per_run.groupby([*keys, "permutation"]).mean().groupby(keys)
    bands = pd.DataFrame({"low": means.quantile(low), "high": means.quantile(high)})
    return {key: band.droplevel(keys[:3]) for key, band in bands.groupby(keys[:3])}
