"""The log as a table: what it holds, how parts are asked for, and what it refuses."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_spectral.errors import LogError
from keras_spectral.log import SpectralLog
from keras_spectral.log.schema import FACTS, KEYS, PERMUTATION_KEYS
from keras_spectral.summaries import SUMMARIES


def make_log(steps=(0, 1), layers=("hidden", "out"), groups=("all", "SZ"), run="", **options):
    """Return a log whose singular values tell their row: 10 * step + position, then that minus 1.

    Every spectrum of group `SZ` is one value long, all others are two values long.
    """
    keys = [(0, s, layer, g) for s in steps for layer in layers for g in groups]
    rows = pd.DataFrame(keys, columns=["epoch", "step", "layer", "group"])
    rows.insert(0, "run", run)
    rows.insert(4, "weight", "kernel")
    rows.insert(5, "quantity", "gradient")
    length = np.where(rows["group"] == "SZ", 1, 2)
    first = 10.0 * rows["step"].to_numpy() + np.arange(len(rows)) + 2
    sigma = np.stack([first, np.where(length == 2, first - 1, np.nan)], axis=1)
    rows = rows.assign(n_examples=length, batch_size=2, n_rows=length, rank_bound=length)
    rows["frobenius_norm"] = np.sqrt(np.nansum(sigma**2, axis=1))
    return SpectralLog(rows.assign(truncated=False), sigma, **options)


def permuted_groups(steps=(0, 1), n=3, run=""):
    """Return a permutations table."""
    keys = [
        (run, 0, s, "hidden", "kernel", "gradient", "SZ", r) for s in steps for r in range(1, n + 1)
    ]
    table = pd.DataFrame(keys, columns=[*KEYS, "permutation"])
    table = table.assign(n_examples=1, batch_size=2, n_rows=1)
    values = np.random.default_rng(0).random((len(table), len(SUMMARIES)))
    return table.assign(**dict(zip(SUMMARIES, values.T, strict=True)))


def assert_equal_logs(found, expected):
    pd.testing.assert_frame_equal(found.rows, expected.rows, check_dtype=False)
    np.testing.assert_array_equal(found.sigma, expected.sigma)
    pd.testing.assert_frame_equal(found.permutations, expected.permutations, check_dtype=False)


# --- what it holds ---


def test_an_empty_log_has_the_columns_and_nothing_else():
    log = SpectralLog()
    assert len(log) == 0
    assert [log.runs, log.layers, log.groups, log.quantities, log.steps] == [[]] * 5
    assert list(log.rows) == list(log.to_dataframe()) == [*KEYS, *FACTS]
    assert log.sigma.shape == (0, 0)
    assert list(log.permutations) == [*PERMUTATION_KEYS, *SUMMARIES]
    assert list(log.summary("nuclear_norm")) == [*KEYS, *FACTS, "nuclear_norm"]
    assert "0 spectra" in repr(log)


def test_a_log_lists_what_it_holds_in_order():
    log = make_log(steps=(5, 0), layers=("z", "a"))
    assert log.layers == ["z", "a"]
    assert log.groups == ["all", "SZ"]
    assert log.steps == [0, 5]
    assert log.quantities == ["gradient"]
    assert log.runs == [""]
    assert repr(log) == "<SpectralLog: 8 spectra, 2 steps, layers=['z', 'a'], groups=['all', 'SZ']>"


def test_the_table_is_tidy():
    table = make_log().to_dataframe()
    assert list(table) == [*KEYS, *FACTS, "sigma_1", "sigma_2"]
    assert len(table) == 8
    assert table["sigma_2"].isna().tolist() == [False, True] * 4


# --- append, after ---


def test_appended_blocks_of_other_widths_are_padded():
    log = SpectralLog()
    wide = make_log(steps=(1,))
    narrow = SpectralLog(make_log(groups=("SZ",)).rows, make_log(groups=("SZ",)).sigma[:, :1])
    log.append(narrow)
    assert log.sigma.shape == (4, 1)
    log.append(wide)
    log.append(SpectralLog())
    assert log.sigma.shape == (8, 2)
    assert np.isnan(log.sigma[:4, 1]).all()
    assert log.rows.index.tolist() == list(range(8))


def test_appending_leaves_the_other_log_alone():
    log, other = make_log(steps=(0,)), make_log(steps=(1,), permutations=permuted_groups())
    before = copy.deepcopy(other)
    log.append(other)
    log.append(make_log(steps=(2,)))
    assert_equal_logs(other, before)
    assert log.steps == [0, 1, 2]
    assert len(log.permutations) == 6


def test_appending_a_log_to_itself_ends():
    log = make_log(permutations=permuted_groups())
    log.append(log)
    assert len(log) == 16
    assert len(log.permutations) == 12


def test_the_first_provenance_wins():
    log = make_log(provenance={"seed": 1})
    log.append(make_log(provenance={"seed": 2, "python": "3"}))
    assert log.provenance == {"seed": 1, "python": "3"}


@given(st.lists(st.integers(1, 3), min_size=1, max_size=4), st.data())
def test_after_returns_what_came_since(steps_per_block, data):
    log, step = SpectralLog(), 0
    for steps in steps_per_block:
        log.append(make_log(steps=range(step, step + steps)))
        step += steps
    n = data.draw(st.integers(0, len(log) + 2))
    new = log.after(n)
    assert len(new) == max(0, len(log) - n)
    expected = log.rows.iloc[n:].reset_index(drop=True)
    pd.testing.assert_frame_equal(new.rows, expected, check_dtype=False)
    assert new.sigma[:, :1].tolist() == log.sigma[n:, :1].tolist()


def test_after_counts_permutations_by_themselves():
    log = make_log(permutations=permuted_groups(), provenance={"seed": 1})
    assert len(log.after(0).permutations) == 6
    new = log.after(8, 4)
    assert len(new) == 0
    assert new.permutations["permutation"].tolist() == [2, 3]
    assert new.provenance == {"seed": 1}


def test_permutations_keep_their_types_beside_logs_without():
    log = SpectralLog()
    for part in (
        make_log().select(step=0),
        make_log(permutations=permuted_groups()),
        make_log().after(9),
    ):
        log.append(part)
    pd.testing.assert_frame_equal(log.permutations, permuted_groups())


# --- runs ---


def test_a_run_label_becomes_the_run_text():
    log = make_log(permutations=permuted_groups()).with_run("first")
    assert log.runs == ["first"]
    assert log.permutations["run"].unique().tolist() == ["first"]
    assert make_log().with_run(3).runs == ["3"]


def test_run_labels_become_columns_between_run_and_epoch():
    log = make_log(permutations=permuted_groups()).with_run({"fold": 0, "seed": np.int64(7)})
    for table in (log.rows, log.permutations):
        assert list(table)[:4] == ["run", "fold", "seed", "epoch"]
        assert table[["run", "fold", "seed"]].drop_duplicates().values.tolist() == [
            ["fold=0 seed=7", 0, 7]
        ]
    again = log.with_run({"fold": 1})
    assert again.rows["fold"].unique().tolist() == [1]
    assert again.runs == ["fold=1"]


def test_labelling_a_run_leaves_the_log_alone():
    log = make_log()
    log.with_run("other")
    assert log.runs == [""]


@pytest.mark.parametrize(
    "label", ["epoch", "layer", "n_rows", "truncated", "sigma_3", "permutation"]
)
def test_run_labels_must_not_hide_columns(label):
    with pytest.raises(LogError, match=rf"no columns of a log. Received: .*\['{label}'\]. Try"):
        make_log().with_run({label: 1})


def test_logs_of_several_runs_become_one():
    logs = {"a": make_log(provenance={"seed": 1}), "b": make_log(permutations=permuted_groups())}
    log = SpectralLog.concat(logs)
    assert len(log) == 16
    assert log.runs == ["a", "b"]
    assert log.provenance == {"runs": {"a": {"seed": 1}, "b": {}}}
    assert log.permutations["run"].unique().tolist() == ["b"]
    assert logs["a"].runs == [""]
    assert_equal_logs(SpectralLog.concat(part.with_run(run) for run, part in logs.items()), log)
    assert SpectralLog.concat(iter([make_log(provenance={"seed": 1})])).provenance["runs"]


def test_logs_with_other_run_labels_become_one():
    log = SpectralLog.concat([make_log().with_run({"fold": 0}), make_log().with_run({"site": "x"})])
    assert log.select(fold=0).runs == ["fold=0"]
    assert log.select(site="x").runs == ["site=x"]


def test_a_record_that_occurs_twice_is_refused_by_its_keys():
    with pytest.raises(
        LogError, match=r"4 repeated rows, the first being .*'step': 1, 'layer': 'hi"
    ):
        SpectralLog.concat([make_log(steps=(0, 1)), make_log(steps=(1, 2))])


# --- asking for parts ---


def test_a_selection_keeps_what_fits_all_keys():
    log = make_log(permutations=permuted_groups(), provenance={"seed": 1})
    part = log.select(step=1, layer=["out", "hidden"], group="SZ")
    assert part.rows[["step", "layer", "group"]].values.tolist() == [
        [1, "hidden", "SZ"],
        [1, "out", "SZ"],
    ]
    assert part.sigma.shape == (2, 1)
    assert part.permutations["step"].tolist() == [1, 1, 1]
    assert part.provenance == {"seed": 1}
    assert len(log.select()) == len(log)
    assert len(log.select(step=np.array([0, 1]))) == len(log.select(step={0, 1})) == 8


def test_a_run_label_selects_with_or_without_permutations():
    for permuted in (None, permuted_groups()):
        log = make_log(permutations=permuted).with_run({"fold": 2})
        assert len(log.select(fold=2)) == 8
        with pytest.raises(
            LogError, match=r"`fold` must occur in the log. Received: fold=3. .*\[2\]"
        ):
            log.select(fold=3)


def test_a_run_label_that_no_permutation_has_selects_none():
    labelled = make_log().with_run({"fold": 0})
    log = SpectralLog.concat([labelled, make_log(run="b", permutations=permuted_groups(run="b"))])
    assert len(log.select(fold=0).permutations) == 0
    assert len(log.select(run="b").permutations) == 6


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"layer": "dense"},
            r"`layer` must occur .*Received: layer='dense'. .*\['hidden', 'out'\]",
        ),
        ({"step": [0, 99]}, r"Received: step=\[0, 99\]. The log holds \[0, 1\]"),
        ({"group": 1}, r"Received: group=1. .*\['all', 'SZ'\]"),
        ({"colour": "red"}, r"can be selected by \['run', .*Received: colour='red'"),
        ({"n_rows": 1}, r"can be selected by .*Received: n_rows=1"),
    ],
)
def test_a_selection_of_what_is_not_there_says_what_is(keys, message):
    with pytest.raises(LogError, match=message):
        make_log().select(**keys)


def test_long_lists_are_shortened_in_errors():
    with pytest.raises(LogError, match=r"\[0, 1, 2, 3, 4, 5, 6, 7, …\]"):
        make_log(steps=range(100)).select(step=100)


def test_singular_values_are_those_of_one_record_without_padding():
    log = make_log()
    np.testing.assert_array_equal(log.singular_values("hidden", step=1), [16.0, 15.0])
    np.testing.assert_array_equal(log.singular_values("out", group="SZ", step=1), [19.0])
    one_step = log.select(step=1)
    np.testing.assert_array_equal(one_step.singular_values("hidden", "gradient"), [16.0, 15.0])


def test_singular_values_must_be_asked_for_one_record():
    log = SpectralLog.concat({"a": make_log(), "b": make_log()})
    with pytest.raises(LogError, match=r"fits 4 records. Try giving \['run', 'step'\] as well"):
        log.singular_values("out")
    assert len(log.singular_values("out", step=0, run="b")) == 2
    with pytest.raises(LogError, match=r"`quantity` must occur"):
        log.singular_values("out", "adjoint")
    part = make_log(layers=("a",), steps=(0,))
    part.append(make_log(layers=("b",), steps=(1,)))
    with pytest.raises(LogError, match=r"fits 0 records. Try `log.rows`"):
        part.singular_values("a", step=1)


def test_an_empty_log_says_that_it_is_empty():
    with pytest.raises(LogError, match=r"`layer` must occur in the log.*holds \[\]"):
        SpectralLog().singular_values("out")


def test_a_nan_spectrum_keeps_its_length():
    log = make_log()
    rows, sigma = log.rows.assign(frobenius_norm=np.nan), np.full((8, 2), np.nan)
    nan = SpectralLog(rows, sigma)
    assert len(nan.singular_values("out", step=0)) == 2
    assert len(nan.singular_values("out", step=0, group="SZ")) == 1
    top_one = SpectralLog(rows.assign(truncated=True), sigma[:, :1])
    assert len(top_one.singular_values("out", step=0)) == 1


# --- summaries ---


def test_summaries_stand_beside_their_keys():
    log = make_log()
    table = log.summary("nuclear_norm", "numerical_rank")
    assert list(table) == [*KEYS, *FACTS, "nuclear_norm", "numerical_rank"]
    np.testing.assert_array_equal(table["nuclear_norm"], np.nansum(log.sigma, axis=1))
    assert table["numerical_rank"].tolist() == [2, 1] * 4
    assert set(log.summary()) == {*KEYS, *FACTS, *SUMMARIES}
    assert "nuclear_norm" not in log.rows


def test_size_correction_scales_norms_and_no_ranks():
    log = make_log()
    plain, corrected = log.summary(), log.summary(size_corrected=True)
    factor = (plain["batch_size"] / plain["n_examples"]).to_numpy()
    for name in SUMMARIES:
        expected = plain[name] * factor if name.endswith("norm") else plain[name]
        np.testing.assert_allclose(corrected[name], expected)
    np.testing.assert_array_equal(corrected["n_examples"], plain["n_examples"])


def test_an_unknown_summary_is_refused():
    with pytest.raises(LogError, match=r"must be among \['spectral_norm', .*Received: \['loss'\]"):
        make_log().summary("loss")


# --- copies ---


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda log: pickle.loads(pickle.dumps(log))])
def test_a_copy_is_equal_and_independent(copied):
    log = make_log(permutations=permuted_groups(), provenance={"seed": 1})
    twin = copied(log)
    assert_equal_logs(twin, log)
    assert twin.provenance == log.provenance
    twin.append(make_log(steps=(7,)))
    assert 7 not in log.steps
    empty = copied(SpectralLog())
    empty.append(log)
    assert_equal_logs(empty, log)


def test_changing_what_a_log_returned_changes_no_log():
    log = make_log()
    returned = [log.to_dataframe(), log.summary(), log.with_run("x").rows, log.select(step=0).rows]
    for table in returned:
        table.loc[0, "layer"] = "?"
    log.select(step=0).sigma[0, 0] = -1
    assert_equal_logs(log, make_log())


def test_a_log_grows_while_it_is_read():
    log = make_log(steps=(0,))
    for step in range(1, 30):
        assert log.steps == list(range(step))
        log.append(make_log(steps=(step,)))
    assert log.sigma[:, 0].tolist() == [10.0 * s + p + 2 for s in range(30) for p in range(4)]
