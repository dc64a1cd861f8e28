"""Comparison of two groups: values by hand and by loops, the null, and what cannot be compared."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from keras_spectral.analysis import compare_groups, z_by_step
from keras_spectral.errors import ComparisonError, LogError
from keras_spectral.log import SpectralLog
from keras_spectral.summaries import NORMS, SUMMARIES

KS_99 = 1.63
"""99 % quantile of the Kolmogorov statistic times the root of the sample size."""


def test_comparison_equals_a_naive_loop(synthetic_log):
    log = synthetic_log(
        n_permutations=25,
        runs=("fold=0", "fold=1"),
        layers=("a", "b"),
        quantities=("activation", "gradient"),
        effect=1.0,
        batch_size=20,
    )
    table = compare_groups(log, "HC", "SZ", summaries=["spectral_norm", "effective_rank"])
    assert len(table) == 2 * 2 * 2
    for row in table.itertuples():
        statistics = _naive_statistics(log, row.layer, row.quantity, row.summary)
        tested = row.corrected_difference if row.summary in NORMS else row.difference
        assert tested == pytest.approx(statistics[0], rel=1e-9)
        null = statistics[1:]
        assert row.z == pytest.approx((statistics[0] - np.mean(null)) / np.std(null, ddof=1))
        distance = np.abs(np.array(statistics) - np.mean(statistics))
        assert row.p == pytest.approx(np.mean(distance >= distance[0] * (1 - 1e-9)))


def test_raw_differences_are_those_of_the_log(synthetic_log):
    log = synthetic_log(steps=range(4))
    summary = log.summary("nuclear_norm").set_index("group")["nuclear_norm"]
    (row,) = compare_groups(log, "SZ", "HC", summaries="nuclear_norm").itertuples()
    assert row.value_a == pytest.approx(summary["SZ"].mean())
    assert row.value_b == pytest.approx(summary["HC"].mean())
    assert row.difference == pytest.approx(row.value_a - row.value_b)


def test_runs_weigh_the_same_whatever_their_number_of_steps(synthetic_log):
    long = synthetic_log(steps=range(9), seed=1)
    short = synthetic_log(steps=range(2), seed=2)
    both = SpectralLog.concat({"long": long, "short": short})
    alone = [
        compare_groups(log, "HC", "SZ", summaries="spectral_norm")["difference"].item()
        for log in (long, short)
    ]
    together = compare_groups(both, "HC", "SZ", summaries="spectral_norm")
    assert together["difference"].item() == pytest.approx(np.mean(alone))
    assert together["n_runs"].item() == 2


def test_norms_are_size_corrected_and_ranks_are_not(synthetic_log):
    table = compare_groups(synthetic_log(steps=[0]), "HC", "SZ").set_index("summary")
    norms, ranks = table.loc[list(NORMS)], table.drop(index=list(NORMS))
    np.testing.assert_allclose(norms["corrected_a"], norms["value_a"] * 34 / 20)
    np.testing.assert_allclose(norms["corrected_b"], norms["value_b"] * 34 / 14)
    assert ranks.filter(like="corrected_").isna().all(axis=None)
    assert table["n_a"].unique() == [20]
    assert table["n_b"].unique() == [14]


def test_an_effect_is_found_and_named(synthetic_log):
    log = synthetic_log(n_permutations=39, effect=3.0, layers=("dense", "logits"))
    table = compare_groups(log, "HC", "SZ", summaries="frobenius_norm")
    np.testing.assert_allclose(table["p"], 1 / 40)
    assert (table["p_adjusted"] <= 0.05).all()
    assert (table["q"] <= 0.05).all()
    assert (table["z"] > 2).all()
    assert list(table["layer"]) == ["dense", "logits"]


def test_swapping_the_groups_changes_only_the_sign(synthetic_log):
    log = synthetic_log(n_permutations=19)
    there, back = compare_groups(log, "HC", "SZ"), compare_groups(log, "SZ", "HC")
    np.testing.assert_allclose(there["difference"], -back["difference"])
    np.testing.assert_allclose(there["z"], -back["z"])
    pd.testing.assert_series_equal(there["p"], back["p"])
    pd.testing.assert_series_equal(there["p_adjusted"], back["p_adjusted"])


def test_p_is_uniform_without_an_effect_though_sizes_differ(synthetic_log):
    logs = [
        synthetic_log({"HC": 16, "SZ": 6}, n_permutations=19, steps=(0,), seed=seed)
        for seed in range(120)
    ]
    tables = [compare_groups(log, "HC", "SZ", summaries="effective_rank") for log in logs]
    table = pd.concat(tables)
    assert table["difference"].mean() > 0.1  # the larger group has the higher rank, by chance
    grid = np.arange(1, 21) / 20
    reached = (table["p"].to_numpy()[:, None] <= grid + 1e-9).mean(axis=0)
    assert np.abs(reached - grid).max() < KS_99 / np.sqrt(len(table))


def test_a_rank_that_never_moves_has_p_of_one(synthetic_log):
    table = compare_groups(synthetic_log(n_permutations=19), "HC", "SZ", summaries="numerical_rank")
    assert table["p"].item() == 1.0
    assert table["p_adjusted"].item() == 1.0
    assert np.isnan(table["z"].item())


def test_only_steps_with_permutations_are_averaged(synthetic_log):
    log = synthetic_log(n_permutations=19, steps=range(4))
    kept = log.permutations[log.permutations["step"].isin([1, 3])]
    sparse = SpectralLog(log.rows, log.sigma, kept, log.provenance)
    expected = compare_groups(log, "HC", "SZ", steps=[1, 3])
    pd.testing.assert_frame_equal(compare_groups(sparse, "HC", "SZ"), expected)
    assert expected["n_steps"].unique() == [2]


def test_only_permutations_that_all_runs_have_are_used(synthetic_log):
    log = synthetic_log(n_permutations=30, runs=("a", "b"))
    table = log.permutations
    kept = table[(table["run"] == "a") | (table["permutation"] <= 20)]
    result = compare_groups(SpectralLog(log.rows, log.sigma, kept), "HC", "SZ")
    assert result["n_permutations"].unique() == [20]
    assert "20 permutations" in result.attrs["null"]


def test_without_permutations_there_is_no_p(synthetic_log):
    table = compare_groups(synthetic_log(), "HC", "SZ")
    assert table[["z", "p", "q", "p_adjusted"]].isna().all(axis=None)
    assert table["difference"].notna().all()
    expected = "no permutations were recorded: differences only, no p-value can be given"
    assert table["null"].unique() == [expected]
    assert table.attrs["null"] == expected


def test_the_null_is_said_in_words(synthetic_log):
    null = compare_groups(synthetic_log(n_permutations=99, steps=[0]), "HC", "SZ").attrs["null"]
    assert null == "99 permutations over subjects, sizes kept; the smallest possible p is 0.01"


def test_few_permutations_say_that_they_are_few(synthetic_log):
    null = compare_groups(synthetic_log(n_permutations=9), "HC", "SZ").attrs["null"]
    assert "smallest possible p is 0.1, so nothing can reach 0.05" in null


def test_all_is_compared_without_p(synthetic_log):
    table = compare_groups(synthetic_log(n_permutations=19), "HC", "all")
    assert table["p"].isna().all()
    assert table["difference"].notna().all()
    assert "`all` is never permuted" in table.attrs["null"]


@pytest.mark.parametrize(
    "provenance",
    [
        {"groups_are_target": ["HC", "SZ"]},
        {"groups_are_target": True},
        {"runs": {"run": {"groups_are_target": ["SZ"]}}},
        {"runs": {"study": {"runs": {"run": {"groups_are_target": ["SZ"]}}}}},
    ],
)
def test_a_target_is_warned_of_once(synthetic_log, provenance):
    log = synthetic_log(n_permutations=19, provenance=provenance)
    with pytest.warns(UserWarning, match="training has seen the labels") as caught:
        table = compare_groups(log, "HC", "SZ")
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert "exact null permutes the target" in table["null"].iloc[0]


def test_a_factor_that_is_the_target_is_warned_of(synthetic_log):
    log = synthetic_log(
        {"dx=HC": 9, "dx=SZ": 9}, n_permutations=19, provenance={"groups_are_target": ["dx"]}
    )
    with pytest.warns(UserWarning, match="dx=HC and dx=SZ: the target"):
        compare_groups(log, "dx=HC", "dx=SZ")


def test_another_target_is_not_warned_of(synthetic_log):
    log = synthetic_log(n_permutations=19, provenance={"groups_are_target": ["F", "M"]})
    assert "Training" not in compare_groups(log, "HC", "SZ").attrs["null"]


def test_a_target_without_p_is_not_warned_of(synthetic_log):
    compare_groups(synthetic_log(provenance={"groups_are_target": ["HC"]}), "HC", "SZ")


def test_nan_spectra_are_skipped_and_counted(synthetic_log):
    log = synthetic_log(n_permutations=19, steps=range(4))
    bad = (log.rows["step"] == 2).to_numpy()
    rows, sigma, table = log.rows.copy(), log.sigma.copy(), log.permutations.copy()
    rows.loc[bad, "frobenius_norm"], sigma[bad] = np.nan, np.nan
    table.loc[table["step"] == 2, list(SUMMARIES)] = np.nan
    result = compare_groups(SpectralLog(rows, sigma, table), "HC", "SZ")
    expected = compare_groups(log, "HC", "SZ", steps=[0, 1, 3])
    assert result["n_skipped"].unique() == [1]
    columns = ["value_a", "difference", "corrected_difference", "p", "p_adjusted", "n_steps"]
    pd.testing.assert_frame_equal(result[columns], expected[columns])


def test_a_log_of_nan_alone_gives_nan_without_warnings(synthetic_log):
    log = synthetic_log(n_permutations=19)
    rows = log.rows.assign(frobenius_norm=np.nan)
    table = log.permutations.assign(**dict.fromkeys(SUMMARIES, np.nan))
    result = compare_groups(SpectralLog(rows, log.sigma * np.nan, table), "HC", "SZ")
    assert result[["difference", "z", "p", "q", "p_adjusted"]].isna().all(axis=None)
    assert (result["n_steps"] == 0).all()


def test_what_a_truncated_spectrum_does_not_say_is_nan(synthetic_log):
    log = synthetic_log()
    short = SpectralLog(log.rows.assign(truncated=True), log.sigma[:, :1])
    table = compare_groups(short, "HC", "SZ").set_index("summary")
    assert np.isnan(table.loc["effective_rank", "difference"])
    assert np.isfinite(table.loc["spectral_norm", "difference"])


def test_parts_can_be_chosen(synthetic_log):
    log = synthetic_log(runs=("a", "b"), layers=("x", "y"), quantities=("activation", "gradient"))
    table = compare_groups(log, "HC", "SZ", 1, "b", ["y"], "gradient", ["stable_rank"])
    assert table[["layer", "quantity", "summary"]].values.tolist() == [
        ["y", "gradient", "stable_rank"]
    ]
    assert table["n_runs"].item() == table["n_steps"].item() == 1


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ("SZ", "BP", r"must be groups of the log.*Try two of \['all', 'HC', 'SZ'\]"),
        ("SZ", "SZ", "must be different groups"),
    ],
)
def test_groups_that_are_not_two_groups_raise(synthetic_log, a, b, message):
    with pytest.raises(ComparisonError, match=message):
        compare_groups(synthetic_log(), a, b)


def test_an_empty_log_raises():
    with pytest.raises(ComparisonError, match="an empty log"):
        compare_groups(SpectralLog(), "HC", "SZ")


def test_groups_that_never_meet_raise(synthetic_log):
    log = synthetic_log(steps=(0, 1))
    rows = log.rows
    apart = (rows["group"] == "all") | ((rows["group"] == "HC") == (rows["step"] == 0))
    with pytest.raises(ComparisonError, match="both be present in a recorded step"):
        compare_groups(SpectralLog(rows[apart], log.sigma[apart]), "HC", "SZ")


def test_steps_without_permutations_raise_and_name_those_with(synthetic_log):
    log = synthetic_log(n_permutations=19, steps=range(4))
    kept = log.permutations[log.permutations["step"].isin([1, 3])]
    sparse = SpectralLog(log.rows, log.sigma, kept)
    with pytest.raises(ComparisonError, match=r"Try `steps=None`, or some of \[1, 3\]"):
        compare_groups(sparse, "HC", "SZ", steps=[0, 2])


def test_an_unknown_summary_raises(synthetic_log):
    with pytest.raises(ComparisonError, match=r"must be among.*Received: summaries='rank'"):
        compare_groups(synthetic_log(), "HC", "SZ", summaries="rank")


def test_an_unknown_layer_raises(synthetic_log):
    with pytest.raises(LogError, match="`layer` must occur in the log"):
        compare_groups(synthetic_log(), "HC", "SZ", layers="nowhere")


def test_z_by_step_is_the_comparison_of_that_step(synthetic_log):
    log = synthetic_log(n_permutations=19, runs=("a", "b"), layers=("x", "y"))
    table = z_by_step(log, "HC", "SZ", "spectral_norm")
    assert len(table) == 2 * 3
    for row in table.itertuples():
        one = compare_groups(
            log, "HC", "SZ", steps=row.step, layers=row.layer, summaries="spectral_norm"
        )
        assert row.z == pytest.approx(one["z"].item())
        assert row.difference == pytest.approx(one["corrected_difference"].item())


def test_z_by_step_without_permutations_is_nan(synthetic_log):
    assert z_by_step(synthetic_log(), "HC", "SZ")["z"].isna().all()


def test_comparing_loads_neither_tensorflow_nor_matplotlib():
    code = (
        "import sys; from keras_spectral import analysis; analysis.compare_groups; "
        "assert not {'tensorflow', 'keras', 'matplotlib', 'jinja2'} & set(sys.modules); "
        "analysis.figures, analysis.report; "
        "assert not {'tensorflow', 'keras', 'matplotlib.pyplot'} & set(sys.modules); "
        "assert callable(analysis.report)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_comparing_leaves_the_log_as_it_was(synthetic_log):
    log = synthetic_log(n_permutations=19)
    rows, sigma, table = log.rows.copy(), log.sigma.copy(), log.permutations.copy()
    compare_groups(log, "HC", "SZ")
    pd.testing.assert_frame_equal(log.rows, rows)
    pd.testing.assert_frame_equal(log.permutations, table)
    np.testing.assert_array_equal(log.sigma, sigma)


def _naive_statistics(log, layer, quantity, summary):
    records = log.summary(summary).assign(permutation=0)
    records = pd.concat([records, log.permutations])
    records = records[(records["layer"] == layer) & (records["quantity"] == quantity)]
    statistics = []
    for _, labelling in records.groupby("permutation"):
        of_runs = []
        for _, run in labelling.groupby("run"):
            differences = []
            for _, moment in run.groupby("step"):
                value = {row["group"]: _naive_value(row, summary) for _, row in moment.iterrows()}
                if {"HC", "SZ"} <= set(value):
                    differences.append(value["HC"] - value["SZ"])
            if differences:
                of_runs.append(np.mean(differences))
        statistics.append(np.mean(of_runs))
    return statistics


def _naive_value(row, summary):
    if summary not in NORMS:
        return row[summary]
    if row["quantity"] == "gradient":
        return row[summary] * row["batch_size"] / row["n_examples"]
    return row[summary] / np.sqrt(row["n_rows"])


def test_of_a_run_trained_again_permutations_of_all_its_steps_are_compared(synthetic_log):
    many = synthetic_log(n_permutations=19, steps=(0, 1))
    few = synthetic_log(n_permutations=5, steps=(2, 3))
    many.append(few)
    assert compare_groups(many, "HC", "SZ")["n_permutations"].unique().tolist() == [5]
