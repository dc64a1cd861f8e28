"""Cross-validated runs: what is fitted on what, what is written, and that nothing gets lost."""

import dataclasses
import json
import warnings

import keras
import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold

import keras_spectral as ks
from keras_spectral.errors import DataError, GroupsError
from keras_spectral.experiment import folder as run_folder
from keras_spectral.experiment import run as experiment
from keras_spectral.experiment.folder import fold_folder
from keras_spectral.experiment.study import Plan, Study

N, FEATURES = 16, 4
PLAN = Plan(folds=2, epochs=2, batch_size=5, permutations=2, every=1)
STEPS = 4  # two epochs of 8 subjects in batches of 5
LAYERS = ["hidden_1", "hidden_2", "output"]
QUANTITIES = ["activation", "adjoint", "gradient"]
WRITTEN = ["scores.csv", "spectra.csv", "probe.csv"]


@pytest.fixture(autouse=True)
def fixed_seed():
    """Nothing: runs fix their own seeds, and clearing Keras takes longer than most tests here."""


def make_study(groups=("F", "F", "M", "M"), classes=("HC", "SZ"), **about):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, FEATURES)) * [1, 10, 100, 1000] + 5
    y = np.arange(N) % len(classes)
    groups = pd.Series(np.resize(np.array(groups, dtype=object), N))
    return Study(x, y, classes, groups, about)


def folds(study, plan=PLAN):
    splits = StratifiedKFold(plan.folds, shuffle=True, random_state=0)
    return list(splits.split(study.x, study.y))


def trained(study, plan, path, **options):
    folder = experiment.prepared_folder(path, study, plan)
    return folder, *experiment.cross_validated(study, plan, folder, **options)


def loaded(folder, fold, seed=0):
    return keras.models.load_model(fold_folder(folder, fold, seed) / "model.keras")


def probabilities(model, x):
    return np.asarray(model(x.astype("float32"), training=False))


def contents(folder, names=WRITTEN):
    return {name: (folder / name).read_bytes() for name in names}


def everything(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def stopped_at(fold, epoch):
    """A progress callback that interrupts a run."""

    def progress(*now):
        if now == (fold, 0, epoch, 0):
            raise KeyboardInterrupt

    return progress


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run: its folder, scores and probe log."""
    return trained(make_study(), PLAN, tmp_path_factory.mktemp("runs") / "finished")


class TestWhatARunLeaves:
    def test_every_fold_layer_quantity_and_group_is_recorded_at_every_step(self, finished):
        folder, _, _ = finished
        rows = ks.read_log(folder / "spectra.csv").to_dataframe()
        assert rows["fold"].unique().tolist() == [0, 1]
        assert rows["seed"].unique().tolist() == [0]
        everywhere = rows[rows["group"] == "all"].groupby(["fold", "step"])
        assert len(everywhere) == PLAN.folds * STEPS
        for _, moment in everywhere:
            found = sorted(moment[["layer", "quantity"]].itertuples(index=False, name=None))
            assert found == [(layer, quantity) for layer in LAYERS for quantity in QUANTITIES]
        assert set(rows["group"]) == {"all", "F", "M"}

    def test_group_rows_count_every_subject_of_the_training_folds_once_per_epoch(self, finished):
        rows = ks.read_log(finished[0] / "spectra.csv").to_dataframe()
        one = rows[(rows["layer"] == "output") & (rows["quantity"] == "gradient")]
        sizes = one.groupby(["fold", "epoch", "group"])["n_examples"].sum().unstack()
        for fold, (train, _) in enumerate(folds(make_study())):
            groups = make_study().groups.iloc[train]
            expected = {"all": N // 2, "F": (groups == "F").sum(), "M": (groups == "M").sum()}
            for _, found in sizes.loc[fold].iterrows():
                assert found.to_dict() == expected

    def test_probe_looks_at_the_whole_training_fold_with_all_permutations(self, finished):
        _, _, probe = finished
        assert probe.rows["batch_size"].unique().tolist() == [N // 2]
        assert probe.rows.groupby("run")["epoch"].unique().map(list).tolist() == [[0, 1, 2]] * 2
        assert sorted(probe.permutations["permutation"].unique()) == [1, 2]

    def test_scores_are_those_of_the_saved_models_on_raw_test_folds(self, finished):
        folder, scores, _ = finished
        study = make_study()
        assert scores.columns.tolist() == ["fold", "seed", "auc", "accuracy"]
        pd.testing.assert_frame_equal(scores, pd.read_csv(folder / "scores.csv"))
        for fold, (_, test) in enumerate(folds(study)):
            p = probabilities(loaded(folder, fold), study.x[test])
            assert scores["auc"][fold] == roc_auc_score(study.y[test], p[:, 1])
            assert scores["accuracy"][fold] == (p.argmax(axis=1) == study.y[test]).mean()

    def test_run_file_tells_settings_versions_and_what_is_known_of_the_data(self, tmp_path):
        study = make_study(target="dx", simulated=True)
        folder = experiment.prepared_folder(tmp_path / "run", study, PLAN)
        what = json.loads((folder / "run.json").read_text())
        assert what["plan"] == json.loads(json.dumps(dataclasses.asdict(PLAN)))
        assert {"keras_spectral", "keras", "tensorflow"} <= set(what["versions"])
        assert (what["target"], what["simulated"]) == ("dx", True)
        assert run_folder.former_run(folder) == what

    @pytest.mark.slow
    def test_seeds_repeat_the_folds_with_other_splits_and_weights(self, finished, tmp_path):
        plan = dataclasses.replace(PLAN, seeds=2)
        folder, scores, _ = trained(make_study(), plan, tmp_path / "run")
        assert scores[["fold", "seed"]].to_numpy().tolist() == [[0, 0], [1, 0], [0, 1], [1, 1]]
        rows = pd.read_csv(folder / "spectra.csv")
        first = rows[rows["step"] == 0].groupby(["fold", "seed"])["sigma_1"].first()
        assert first.nunique() == 4
        for fold in range(2):  # what one seed does is independent of how many there are
            same = [contents(fold_folder(f, fold, 0), WRITTEN[1:]) for f in (folder, finished[0])]
            assert same[0] == same[1]


class TestFittedOnTheTrainingFoldOnly:
    def test_test_rows_have_no_influence_on_training_bit_for_bit(self, finished, tmp_path):
        study = make_study()
        _, test = folds(study)[0]
        wild = study.x.copy()
        wild[test] = wild[test] * -1e3 + 1e6
        study = dataclasses.replace(study, x=wild)
        with pytest.raises(KeyboardInterrupt):
            trained(study, PLAN, tmp_path / "run", progress=stopped_at(1, 0))
        plain, changed = finished[0], tmp_path / "run"
        spectra = [contents(fold_folder(f, 0, 0), WRITTEN[1:]) for f in (plain, changed)]
        assert spectra[0] == spectra[1]
        for before, after in zip(loaded(plain, 0).weights, loaded(changed, 0).weights, strict=True):
            np.testing.assert_array_equal(before, after)

    def test_features_are_standardised_inside_the_saved_model(self, finished):
        study = make_study()
        for fold, (train, _) in enumerate(folds(study)):
            layer = loaded(finished[0], fold).get_layer("standardize")
            z = np.asarray(layer(study.x[train].astype("float32")))
            np.testing.assert_allclose(z.mean(axis=0), 0, atol=1e-5)
            np.testing.assert_allclose(z.std(axis=0), 1, atol=1e-5)


class TestInterruption:
    def test_an_interrupted_run_goes_on_to_the_same_bytes(self, finished, tmp_path):
        with pytest.raises(KeyboardInterrupt):
            trained(make_study(), PLAN, tmp_path / "run", progress=stopped_at(1, 0))
        kept = everything(fold_folder(tmp_path / "run", 0, 0))
        assert kept
        assert not fold_folder(tmp_path / "run", 1, 0).exists()

        seen = []
        folder = experiment.prepared_folder(tmp_path / "run", make_study(), PLAN, resume=True)
        experiment.cross_validated(make_study(), PLAN, folder, lambda *now: seen.append(now))
        assert seen == [(1, 0, epoch, 0) for epoch in range(PLAN.epochs)]
        assert everything(fold_folder(folder, 0, 0)) == kept
        assert contents(folder) == contents(finished[0])
        assert not list(folder.glob("*.part"))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """A run with three classes and three factors: folder, scores, probe log, comparison."""
    study = make_study(classes=("a", "b", "c"))
    groups = {
        "class": np.array(study.classes)[study.y],
        "some": np.resize(["u", None, "v", ""], N),
        "rare": ["k"] + ["m"] * (N - 1),
    }
    study = dataclasses.replace(study, groups=pd.DataFrame(groups))
    plan = dataclasses.replace(PLAN, epochs=1)
    folder, scores, probe = trained(study, plan, tmp_path_factory.mktemp("runs") / "mixed")
    return folder, scores, probe, compared(probe, folder, study)


def compared(*arguments):
    """Return all comparisons that a run writes, as one table."""
    return pd.concat(experiment.findings(*arguments).tables, ignore_index=True)


class TestGroupsAndTargets:
    def test_three_classes_are_scored_by_the_mean_of_one_against_the_rest(self, mixed):
        folder, scores, _, _ = mixed
        study = make_study(classes=("a", "b", "c"))
        for fold, (_, test) in enumerate(folds(study)):
            p = probabilities(loaded(folder, fold), study.x[test])
            each = [roc_auc_score(study.y[test] == c, p[:, c]) for c in range(3)]
            assert scores["auc"][fold] == pytest.approx(np.mean(each), abs=1e-12)

    def test_factors_are_compared_each_by_itself(self, mixed):
        pairs = mixed[3][["group_a", "group_b"]].drop_duplicates().to_numpy().tolist()
        classes = [["class=a", "class=b"], ["class=a", "class=c"], ["class=b", "class=c"]]
        assert pairs == [*classes, ["some=u", "some=v"], ["rare=k", "rare=m"]]

    def test_groups_that_are_the_target_are_named_as_such(self, mixed):
        folder, _, _, table = mixed
        of_target = table["group_a"].str.startswith("class=")
        said = table["null"].str.contains("training has seen the labels")
        pd.testing.assert_series_equal(said, of_target, check_names=False)
        assert "training has seen the labels" in (folder / "report.html").read_text()

    def test_subjects_without_a_label_count_in_no_group_but_in_all(self, mixed):
        probe = mixed[2]
        sizes = probe.rows.groupby(["run", "group"])["n_examples"].first().groupby("group").sum()
        assert sizes[["all", "some=u", "some=v"]].tolist() == [N, N // 4, N // 4]
        permuted = probe.permutations.groupby(["run", "permutation", "group"])["n_examples"].first()
        sizes = permuted.groupby(["permutation", "group"]).sum().unstack()
        assert set(sizes["some=u"]) == set(sizes["some=v"]) == {N // 4}

    def test_a_group_of_one_subject_is_compared_where_it_was_present(self, mixed):
        table = mixed[3].query("group_a == 'rare=k'")
        assert set(table["n_a"]) == {1}
        assert set(table["n_runs"]) == {1}

    def test_a_single_group_is_reported_and_not_compared(self, finished, tmp_path):
        probe = finished[2].select(group=["all", "F"])
        assert experiment.findings(probe, tmp_path, make_study()).tables == []
        assert not (tmp_path / "comparison.csv").exists()
        assert (tmp_path / "report.html").exists()

    def test_without_permutations_differences_come_without_p_and_say_so(self, tmp_path):
        study = make_study()
        _, test = folds(study)[0]
        study.x[:, 0] = 0.1  # not exact in binary: its computed variance may be tiny, not zero
        study.x[test[0], 0] = 5.0
        plan = dataclasses.replace(PLAN, epochs=1, permutations=0)
        folder, _, probe = trained(study, plan, tmp_path / "run")
        table = compared(probe, folder, study)
        assert table[["z", "p", "q", "p_adjusted"]].isna().all(axis=None)
        assert table["difference"].notna().all()
        assert table["null"].str.contains("no p-value can be given").all()
        # Constant in the training fold, not in the test fold: must not be divided by nothing.
        z = loaded(folder, 0).get_layer("standardize")(study.x.astype("float32"))
        assert np.abs(z).max() < 10

    def test_diverged_training_scores_nan_and_goes_on(self, tmp_path):
        study = make_study()
        study.x[0, 0] = np.inf
        plan = dataclasses.replace(PLAN, epochs=1, permutations=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy's and ours, about that number
            _, scores, probe = trained(study, plan, tmp_path / "run")
        assert scores[["auc", "accuracy"]].isna().all(axis=None)
        assert len(probe.runs) == 2


def refused(path, study=None, plan=PLAN, error=DataError, **options):
    """Return why a folder is refused, after checking that it stays as it was."""
    before = everything(path.parent)
    with pytest.raises(error) as caught:
        experiment.prepared_folder(path, study or make_study(), plan, **options)
    assert everything(path.parent) == before
    return str(caught.value)


@pytest.fixture
def former(tmp_path):
    """The folder of a former run, with something of the user's in it."""
    folder = experiment.prepared_folder(tmp_path / "run", make_study(labels="y.csv"), PLAN)
    for name in ("spectra.csv", "probe.permutations.csv.gz", "report.html", "notes.txt"):
        (folder / name).write_text("former")
    for name in ("fold_0_seed_0", "fold_1_seed_0.part", "figures", "my figures"):
        (folder / name).mkdir()
        (folder / name / "z_map.png").write_text("former")
    return folder


class TestFolderOfARun:
    def test_is_made_with_its_parents(self, tmp_path):
        assert experiment.prepared_folder(tmp_path / "a" / "b", make_study(), PLAN).is_dir()

    def test_may_exist_if_it_is_empty(self, tmp_path):
        experiment.prepared_folder(tmp_path, make_study(), PLAN)
        assert (tmp_path / "run.json").exists()

    def test_is_refused_if_it_holds_anything(self, former):
        message = refused(former)
        assert "`out` must be a new or empty folder" in message
        assert "--resume" in message
        assert "--overwrite" in message

    def test_cannot_be_resumed_and_overwritten_at_once(self, former):
        refused(former, resume=True, overwrite=True)

    @pytest.mark.parametrize("options", [{}, {"resume": True}, {"overwrite": True}])
    def test_must_not_be_a_file(self, tmp_path, options):
        path = tmp_path / "thesis.txt"
        path.write_text("mine")
        refused(path, **options)

    @pytest.mark.parametrize("options", [{}, {"resume": True}, {"overwrite": True}])
    def test_under_a_file_is_refused(self, tmp_path, options):
        (tmp_path / "thesis.txt").write_text("mine")
        message = refused(tmp_path / "thesis.txt" / "run", error=OSError, **options)
        assert "`out` must be a folder that can be written to" in message

    @pytest.mark.parametrize("options", [{"resume": True}, {"overwrite": True}])
    @pytest.mark.parametrize("run_file", [None, "", "{", "[]", "{}", '{"plan": {"folds": 2}}'])
    def test_of_something_else_is_refused_and_left_as_it_is(self, tmp_path, run_file, options):
        path = tmp_path / "mine"
        path.mkdir()
        (path / "spectra.csv").write_text("years of work")
        if run_file is not None:
            (path / "run.json").write_text(run_file)
        assert "it may hold other files" in refused(path, **options)

    def test_overwriting_removes_the_former_run_and_nothing_else(self, former):
        experiment.prepared_folder(former, make_study(), PLAN, overwrite=True)
        left = sorted(str(path.relative_to(former)) for path in everything(former))
        assert left == ["my figures/z_map.png", "notes.txt", "run.json"]

    def test_overwriting_does_not_follow_links(self, former, tmp_path):
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / "model.keras").write_text("mine")
        (former / "fold_9_seed_9").symlink_to(elsewhere)
        experiment.prepared_folder(former, make_study(), PLAN, overwrite=True)
        assert (elsewhere / "model.keras").read_text() == "mine"
        assert not (former / "fold_9_seed_9").exists()

    def test_resuming_keeps_everything(self, former):
        before = everything(former)
        experiment.prepared_folder(former, make_study(labels="y.csv"), PLAN, resume=True)
        assert everything(former) == before

    def test_resuming_where_there_is_nothing_just_starts(self, tmp_path):
        experiment.prepared_folder(tmp_path / "new", make_study(), PLAN, resume=True)
        assert (tmp_path / "new" / "run.json").exists()

    def test_resuming_from_tables_that_were_moved_is_possible(self, former):
        study = make_study(labels="elsewhere/y.csv")
        experiment.prepared_folder(former, study, PLAN, resume=True)

    @pytest.mark.parametrize(
        ("name", "value"), [("epochs", 3), ("folds", 3), ("seeds", 2), ("permutations", 3)]
    )
    def test_resuming_with_another_setting_names_it(self, former, name, value):
        plan = dataclasses.replace(PLAN, **{name: value})
        message = refused(former, plan=plan, resume=True)
        assert f"where these differ: {name}" in message

    def test_resuming_with_other_values_in_the_tables_is_refused(self, former):
        study = make_study()
        study.x[3, 2] += 1e-6
        assert "differ: features." in refused(former, study, resume=True)

    def test_resuming_with_another_target_or_groups_is_refused(self, former):
        swapped = make_study(classes=("SZ", "HC"))
        assert "differ: target." in refused(former, swapped, resume=True)
        groups = make_study(groups=("F", "M"))
        assert "differ: groups." in refused(former, groups, resume=True)

    def test_is_not_made_for_a_study_that_cannot_be_run(self, tmp_path):
        path = tmp_path / "run"
        few = dataclasses.replace(PLAN, folds=9)
        assert "8 of 'HC', 8 of 'SZ'. Try folds=8" in refused(path, plan=few)
        many = dataclasses.replace(PLAN, permutations=300)
        assert "512" in refused(path, plan=many, error=GroupsError)
        refused(path, make_study(groups=["all"]), error=GroupsError)
        refused(path, make_study(groups=[None]), error=GroupsError)
        assert not path.exists()

    def test_an_unusable_study_does_not_cost_the_former_run(self, former):
        refused(former, plan=dataclasses.replace(PLAN, folds=9), overwrite=True)
