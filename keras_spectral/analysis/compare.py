"""Permutation tests of the differences between two groups.

Groups are compared for every layer, quantity and summary. The statistic is the difference of a
summary, averaged over steps, then over runs. Its null distribution is given by permutations
(`keras_spectral.permutations`): group labels permuted over subjects before training, recorded with
the real ones in the same steps and folds. That null accounts for group sizes, subjects shared by
folds and autocorrelation over steps, which a t-test over runs ignores.
"""

import warnings

import numpy as np
import pandas as pd

from keras_spectral.analysis.nulls import null_text, target_labels
from keras_spectral.analysis.pairing import (
    CORRECTED,
    SERIES,
    TIE,
    mean_over_moments_and_runs,
    mean_over_runs,
    pairing,
)
from keras_spectral.analysis.permutation import (
    false_discovery_rates,
    max_t_adjusted_p,
    permutation_p,
    z_scores,
)
from keras_spectral.errors import ComparisonError
from keras_spectral.summaries import COMPARED, NORMS, SUMMARIES


def compare_groups(log, a, b, steps=None, runs=None, layers=None, quantities=None, summaries=None):
    """Return the differences between two groups, with permutation p-values.

    For every series (layer, weight, quantity) and summary, the difference `a - b` is averaged
    over the steps where both groups were present, then over runs. `p` is the share of labellings
    (the permutations and the observed one) whose difference is at least as far from their common
    mean as the observed difference. Norms are tested size-corrected, ranks as they are; permuted
    groups have the same sizes, so size cannot make a difference significant in either.

    If the log has permutations, only the steps and runs at which these were recorded are used. The
    `r`-th permutation must move the same subjects in every run: call
    `keras_spectral.permutations` once and slice it.

    Args:
        log: A `SpectralLog`.
        a: Group label.
        b: Another group label. `"all"` is allowed, but is never permuted: no p-values.
        steps: Step or list of steps to average; `None` takes all.
        runs: Run label or list of them; `None` takes all.
        layers: Layer path or list of them; `None` takes all.
        quantities: Quantity or list of them; `None` takes all.
        summaries: Names out of `keras_spectral.summaries.SUMMARIES`; `None` takes those in
            `COMPARED` there, all but `numerical_rank`.

    Returns:
        DataFrame, one row per series and summary, in layer order: `group_a`, `group_b`, the means
        `value_a`, `value_b` and their `difference`; `corrected_a`, `corrected_b`,
        `corrected_difference` (size-corrected, NaN for ranks, which have no correction); `z`
        (against the permutations alone), `p`, `q` (Benjamini-Hochberg over the table),
        `p_adjusted` (maximum statistic over the table: family-wise); mean examples `n_a`, `n_b`;
        `n_steps` (distinct steps used), `n_skipped` (steps of runs left out because a spectrum
        was NaN), `n_runs`, `n_permutations`; and `null`, a text that states the null used, also in
        `result.attrs["null"]`. Without permutations `z`, `p`, `q` and `p_adjusted` are NaN.

    Raises:
        ComparisonError: If these are not two groups of the log, no chosen step has both of them,
            or a summary is unknown.
        LogError: If a run, layer or quantity does not occur.

    Warns:
        UserWarning: If the groups are classes of the target (`provenance["groups_are_target"]`):
            then a small p only says that they are not random groups.

    Example:
        >>> compare_groups(log, "SZ", "HC", summaries="effective_rank")  # doctest: +SKIP

    Source: Westfall and Young, "Resampling-Based Multiple Testing", Wiley 1993.
    """
    result = comparison(log, a, b, steps, runs, layers, quantities, summaries)
    if target_labels(log, a, b) and result["p"].notna().any():
        warnings.warn(result.attrs["null"], UserWarning, stacklevel=2)
    return result


def comparison(log, a, b, steps=None, runs=None, layers=None, quantities=None, summaries=None):
    """Return what `compare_groups` returns, without its warning.

    Args:
        log: See `compare_groups`.
        a: See `compare_groups`.
        b: See `compare_groups`.
        steps: See `compare_groups`.
        runs: See `compare_groups`.
        layers: See `compare_groups`.
        quantities: See `compare_groups`.
        summaries: See `compare_groups`.

    Returns:
        DataFrame.
    """
    names = summary_names(summaries)
    keys = {"run": runs, "layer": layers, "quantity": quantities}
    pairs = pairing(log, a, b, names, _as_list(steps), **keys)
    parts = [_differences(pairs, name) for name in names]
    statistics = np.concatenate([statistic for _, statistic, _ in parts])
    tolerance = np.concatenate([tolerance for _, _, tolerance in parts])
    table = pd.concat([part for part, _, _ in parts], ignore_index=True)
    table.insert(0, "group_a", a)
    table.insert(1, "group_b", b)
    table = table.assign(
        z=z_scores(statistics, tolerance),
        p=permutation_p(statistics, tolerance),
        p_adjusted=max_t_adjusted_p(statistics, tolerance),
        n_permutations=(~np.isnan(statistics[:, 1:])).sum(axis=1),
    )
    table["q"] = false_discovery_rates(table["p"].to_numpy())
    return _described(table, null_text(log, a, b, len(pairs.labellings) - 1), names)


def z_by_step(log, a, b, summary="effective_rank", quantities=None, layers=None, runs=None):
    """Return the difference of two groups at each step, and its `z` against the permutations.

    Args:
        log: A `SpectralLog` with permutations; without them every `z` is NaN.
        a: Group label.
        b: Another group label.
        summary: Name of a summary; norms are size-corrected.
        quantities: Quantity or list of them; `None` takes all.
        layers: Layer path or list of them; `None` takes all.
        runs: Run label or list of them; `None` takes all.

    Returns:
        DataFrame, one row per series and moment: `layer`, `weight`, `quantity`, `epoch`, `step`,
        `difference` (mean over runs) and `z`.

    Raises:
        ComparisonError: As in `compare_groups`.
        LogError: As in `compare_groups`.
    """
    (name,) = summary_names(summary)
    keys = {"run": runs, "layer": layers, "quantity": quantities}
    pairs = pairing(log, a, b, [name], **keys)
    tested = pairs.tested(name)
    by_moment = mean_over_runs(tested[..., 0] - tested[..., 1])
    flat = by_moment.reshape(-1, by_moment.shape[-1])
    tolerance = np.repeat(_tolerance(tested), len(pairs.moments))
    table = pairs.series.merge(pairs.moments, how="cross")
    return table.assign(difference=flat[:, 0], z=z_scores(flat, tolerance))


def summary_names(summaries):
    """Return names of summaries as a list, checked.

    Args:
        summaries: A name, a list of names, or `None` for those in `COMPARED`.

    Returns:
        List of names.

    Raises:
        ComparisonError: If a name is unknown or there is none.
    """
    names = list(COMPARED) if summaries is None else _as_list(summaries)
    if not names or any(name not in SUMMARIES for name in names):
        raise ComparisonError(
            f"`summaries` must be among {list(SUMMARIES)}. Received: summaries={summaries!r}. "
            f"Try `summaries=None` for {', '.join(COMPARED)}."
        )
    return list(dict.fromkeys(names))


def _differences(pairs, name):
    """Return table rows of one summary, its statistic `[m, j]`, and its tolerance `[m]`."""
    tested = pairs.tested(name)
    statistic = mean_over_moments_and_runs(tested[..., 0] - tested[..., 1])
    raw = pairs.values(name)[..., 0, :]
    corrected = tested[..., 0, :] if name in NORMS else np.full_like(raw, np.nan)
    sizes = pairs.values("n_examples")[..., 0, :]
    used = ~np.isnan(raw[..., 0])
    table = pairs.series.assign(
        order=range(len(pairs.series)),
        summary=name,
        **_means(raw, "value_a", "value_b", "difference"),
        **_means(corrected, *(CORRECTED + end for end in ("a", "b", "difference"))),
        **_means(sizes, "n_a", "n_b"),
        n_steps=used.any(axis=1).sum(axis=1),
        n_skipped=(~np.isnan(sizes[..., 0]) & ~used).sum(axis=(1, 2)),
        n_runs=used.any(axis=2).sum(axis=1),
    )
    return table, statistic, _tolerance(tested)


def _means(values, name_a, name_b, name_difference=None):
    a, b = np.moveaxis(mean_over_moments_and_runs(values), -1, 0)
    means = {name_a: a, name_b: b}
    return means | {name_difference: a - b} if name_difference else means


def _tolerance(tested):
    largest = np.nanmax(np.abs(tested), axis=(1, 2, 3, 4), initial=0.0)
    return TIE * largest


def _described(table, null, names):
    place = {name: position for position, name in enumerate(names)}
    table = table.assign(null=null, place=table["summary"].map(place))
    met = table[table["n_a"].notna()]
    table = met.sort_values(["order", "place"], ignore_index=True)
    tests = ["z", "p", "q", "p_adjusted"]
    counts = ["n_a", "n_b", "n_steps", "n_skipped", "n_runs", "n_permutations", "null"]
    values = [f"{kind}_{end}" for kind in ("value", "corrected") for end in ("a", "b")]
    values = [*values[:2], "difference", *values[2:], f"{CORRECTED}difference"]
    table = table[["group_a", "group_b", *SERIES, "summary", *values, *tests, *counts]]
    table.attrs["null"] = null
    return table


def _as_list(value):
    if value is None:
        return None
    return [value] if isinstance(value, str) or np.ndim(value) == 0 else list(value)
