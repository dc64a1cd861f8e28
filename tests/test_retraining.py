"""Trainings with a permuted target: what is permuted, what is kept, what p-values come of it."""

import dataclasses
import shutil

import joblib
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from scipy import stats

import keras_spectral as ks
from keras_spectral.errors import DataError
from keras_spectral.experiment import run
from keras_spectral.experiment.folder import training_folder
from keras_spectral.experiment.retraining import permuted, score_test, with_retrainings
from keras_spectral.experiment.run import cross_validated, findings, prepared_folder
from keras_spectral.experiment.study import Plan, Study
from keras_spectral.experiment.task import train_apart, train_quietly

N = 20
PLAN = Plan(folds=2, epochs=2, batch_size=6, permutations=2, permute_target=3)


def make_study(n=N, seed=0, **more):
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    groups = pd.DataFrame(
        {"diagnosis": np.array(["HC", "SZ"])[y], "sex": np.resize(["F", "F", "M", "M"], n)}
    )
    return Study(rng.normal(size=(n, 4)), y, ("HC", "SZ"), groups, {}, **more)


def trained(study, plan, path, **options):
    folder = prepared_folder(path, study, plan)
    return folder, *cross_validated(study, plan, folder, **options)


@pytest.fixture(scope="module")
def in_this_process():
    """Have permuted targets trained where it takes no time to begin."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(run, "train_apart", run.train)
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory, in_this_process):
    """A run with retrainings: its folder, scores, probe log."""
    return trained(make_study(), PLAN, tmp_path_factory.mktemp("runs") / "finished")


def test_a_process_of_its_own_gives_the_same(finished, tmp_path):
    folder = prepared_folder(tmp_path / "run", make_study(), PLAN)
    task = PLAN.tasks[2]
    assert train_apart(make_study(), PLAN, task, folder) == task
    for name in ("summaries.csv.gz", "scores.json"):
        found, wanted = (training_folder(f, *task[1]) / name for f in (folder, finished[0]))
        assert found.read_bytes() == wanted.read_bytes()


class TestPermutedStudies:
    def test_target_and_its_groups_move_together_and_nothing_else_does(self):
        study, other = make_study(), permuted(make_study(), 1)
        assert (other.y != study.y).any()
        assert sorted(other.y) == sorted(study.y)
        np.testing.assert_array_equal(other.x, study.x)
        assert other.groups.names == ("diagnosis=HC", "diagnosis=SZ")
        np.testing.assert_array_equal(other.groups.mask, np.stack([other.y == 0, other.y == 1], 1))

    def test_every_number_is_another_permutation_and_always_the_same(self):
        study = make_study()
        targets = [permuted(study, number).y.tolist() for number in (1, 2, 3)]
        assert len({tuple(target) for target in targets}) == 3
        assert permuted(study, 2).y.tolist() == targets[1]

    def test_all_examples_of_a_subject_keep_one_target(self):
        study = make_study(ids=np.repeat([f"s{k}" for k in range(N // 2)], 2))
        y = np.repeat(np.arange(N // 2) % 2, 2)
        groups = pd.Series(np.array(["HC", "SZ"])[y])
        other = permuted(dataclasses.replace(study, y=y, groups=groups), 1)
        np.testing.assert_array_equal(other.y[::2], other.y[1::2])
        assert other.y.sum() == y.sum()

    def test_sites_within_which_subjects_are_permuted_keep_their_share_of_every_class(self):
        sites = np.repeat(["A", "B"], N // 2)
        y = (np.arange(N) % 10 < 3).astype(int)
        y[:4] = 1
        groups = pd.Series(np.array(["HC", "SZ"])[y])
        study = dataclasses.replace(make_study(within=sites), y=y, groups=groups)
        for number in range(1, 6):
            other = permuted(study, number)
            assert other.y[sites == "A"].sum() == y[sites == "A"].sum()

    def test_groups_must_be_the_target(self):
        study = dataclasses.replace(make_study(), groups=make_study().groups[["sex"]])
        with pytest.raises(DataError, match=r"groups that are the target.*sex=F, sex=M"):
            permuted(study, 1)


class TestARunWithRetrainings:
    def test_every_retraining_is_there_for_every_fold(self, finished):
        table = finished[2].permutations.query("group == 'diagnosis=SZ'")
        assert sorted(table["permutation"].unique()) == [1, 2, 3]
        assert set(table["run"]) == set(finished[2].runs)
        assert set(table["epoch"]) == {0, 1, 2}

    def test_groups_that_are_not_the_target_keep_their_permutations(self, finished):
        table = finished[2].permutations.query("group == 'sex=F'")
        assert sorted(table["permutation"].unique()) == [1, 2]

    @pytest.mark.slow
    def test_real_trainings_are_those_of_a_run_without(self, finished, tmp_path):
        plan = dataclasses.replace(PLAN, permute_target=0)
        folder, scores, probe = trained(make_study(), plan, tmp_path / "run")
        assert (folder / "spectra.csv").read_bytes() == (finished[0] / "spectra.csv").read_bytes()
        pd.testing.assert_frame_equal(scores, finished[1])
        pd.testing.assert_frame_equal(probe.rows, finished[2].rows)

        # and such a run can be given retrainings later
        prepared_folder(folder, make_study(), PLAN, resume=True)
        _, probe = cross_validated(make_study(), PLAN, folder)
        pd.testing.assert_frame_equal(probe.permutations, finished[2].permutations)

    @pytest.mark.slow
    def test_a_retraining_is_a_training_on_the_permuted_study(self, finished, tmp_path):
        study = permuted(make_study(), 2)
        plan = dataclasses.replace(PLAN, permute_target=0, permutations=0)
        probe = trained(study, plan, tmp_path / "run")[2]
        found = finished[2].permutations.query("permutation == 2 and group == 'diagnosis=SZ'")
        want = probe.select(group="diagnosis=SZ").summary()
        for name in ("frobenius_norm", "effective_rank"):
            # Spectra are the same bit for bit; sums over them are padded to other lengths.
            np.testing.assert_allclose(found[name], want[name], rtol=1e-14)

    def test_comparisons_name_their_null_and_warn_of_nothing(self, finished):
        table = ks.analysis.compare_groups(finished[2], "diagnosis=HC", "diagnosis=SZ")
        assert "3 trainings with the target permuted over subjects" in table["null"].iloc[0]
        assert "exact null of groups that are the target" in table["null"].iloc[0]
        assert set(table["p"].dropna() * 4 % 1) == {0}
        other = ks.analysis.compare_groups(finished[2], "sex=F", "sex=M")
        assert "2 permutations over subjects" in other["null"].iloc[0]

    def test_report_tells_of_both_nulls(self, finished):
        findings(finished[2], finished[0], make_study())
        page = (finished[0] / "report.html").read_text()
        assert "trainings in which the target was permuted" in page
        assert "p is no test here" not in page

    def test_scores_are_set_against_those_of_permuted_targets(self, finished):
        others = pd.read_csv(finished[0] / "retrained_scores.csv")
        assert others.groupby("permutation").size().tolist() == [2, 2, 2]
        test = ks.read_log(finished[0] / "probe.csv").provenance["score_test"]
        assert test["p"] * 4 % 1 == 0
        assert test["mean_auc"] == pytest.approx(finished[1]["auc"].mean())

    def test_an_interrupted_run_goes_on_without_repeating_what_is_finished(
        self, finished, tmp_path
    ):
        def stopped(fold, seed, epoch, number):
            if (number, fold) == (3, 1):
                raise KeyboardInterrupt

        folder = tmp_path / "run"
        shutil.copytree(finished[0], folder)
        shutil.rmtree(training_folder(folder, 3, 1, 0))
        for name in ("probe.csv", "probe.permutations.csv.gz", "retrained_scores.csv"):
            (folder / name).unlink()
        kept = training_folder(folder, 1, 1, 0) / "scores.json"
        before = kept.stat().st_mtime_ns
        prepared_folder(folder, make_study(), PLAN, resume=True)
        with pytest.raises(KeyboardInterrupt):
            cross_validated(make_study(), PLAN, folder, progress=stopped)
        assert not (folder / "probe.csv").exists()
        prepared_folder(folder, make_study(), PLAN, resume=True)
        cross_validated(make_study(), PLAN, folder)
        assert kept.stat().st_mtime_ns == before
        for name in ("probe.csv", "probe.permutations.csv.gz", "retrained_scores.csv"):
            assert (folder / name).read_bytes() == (finished[0] / name).read_bytes()

    def test_without_groups_that_are_the_target_nothing_is_trained(self, tmp_path):
        study = dataclasses.replace(make_study(), groups=make_study().groups[["sex"]])
        with pytest.raises(DataError, match="`--groups`"):
            prepared_folder(tmp_path / "run", study, PLAN)
        assert not (tmp_path / "run").exists()


def test_looks_that_some_training_lacks_are_left_out(finished):
    log = finished[2]
    table = log.permutations.query("group != 'sex=F' and group != 'sex=M'")
    short = table[(table["permutation"] != 3) | (table["epoch"] < 2)]
    both = with_retrainings(log, short).permutations.query("group == 'diagnosis=HC'")
    assert set(both["epoch"]) == {0, 1}
    assert sorted(both["permutation"].unique()) == [1, 2, 3]


def test_score_test_counts_the_real_target_among_all():
    scores = pd.DataFrame({"auc": [0.8, 0.9]})
    others = pd.DataFrame(
        {"permutation": [1, 1, 2, 2, 3, 3], "auc": [0.5, 0.6, 0.85, 0.85, 0.9, 1]}
    )
    test = score_test(scores, others)
    assert test["p"] == 3 / 4
    assert test["permuted_mean_auc"] == pytest.approx((0.55 + 0.85 + 0.95) / 3)


def test_score_test_gives_no_p_value_to_a_diverged_training():
    others = pd.DataFrame({"permutation": [1, 2], "auc": [0.5, 0.6]})
    assert np.isnan(score_test(pd.DataFrame({"auc": [0.8, np.nan]}), others)["p"])


def test_score_test_counts_diverged_trainings_with_a_permuted_target_as_better():
    others = pd.DataFrame({"permutation": [1, 1, 2, 2, 3, 3], "auc": [0.5, np.nan, 0.4, 0.3, 0, 0]})
    assert score_test(pd.DataFrame({"auc": [0.8, 0.9]}), others)["p"] == 2 / 4


def p_of_a_target_that_means_nothing(seed, folder):
    """Return the p-value of a study with random features, a random target, nine permutations."""
    plan = Plan(
        2, epochs=3, batch_size=12, permutations=0, permute_target=9, options={"hidden": (8,)}
    )
    study = make_study(24, seed)
    study = dataclasses.replace(study, groups=pd.Series(np.array(["HC", "SZ"])[study.y]))
    folder = prepared_folder(folder / str(seed), study, plan)
    # In this process, where tracing would take most of the time; `cross_validated` finds all done.
    tf.config.run_functions_eagerly(True)
    try:
        train_quietly(study, plan, plan.all_trainings, folder)
    finally:
        tf.config.run_functions_eagerly(False)
    _, probe = cross_validated(study, plan, folder)
    table = ks.analysis.compare_groups(
        probe, "HC", "SZ", layers="output", quantities="adjoint", summaries="frobenius_norm"
    )
    return table["p"].item()


@pytest.mark.slow
def test_p_values_of_the_target_are_uniform_where_it_means_nothing(tmp_path):
    one = joblib.delayed(p_of_a_target_that_means_nothing)
    p = np.array(joblib.Parallel(2)(one(seed, tmp_path) for seed in range(60)))
    # On tenths; less a random part of a tenth, they are uniform on (0, 1) under the null.
    jittered = p - np.random.default_rng(0).uniform(0, 0.1, len(p))
    assert stats.kstest(jittered, "uniform").pvalue > 0.001
