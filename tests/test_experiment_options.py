"""Runs with other models, several processes, filters of examples: what each option changes."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

import keras_spectral as ks
from keras_spectral.errors import DataError, SettingsError
from keras_spectral.experiment import run
from keras_spectral.experiment.fold import train_fold
from keras_spectral.experiment.folder import fold_folder
from keras_spectral.experiment.run import cross_validated, prepared_folder
from keras_spectral.experiment.study import Plan, Study, permuted_groups, split

N = 20
PLAN = Plan(folds=2, epochs=2, batch_size=6, permutations=2, every=1)
FILES = ("scores.csv", "spectra.csv", "probe.csv", "probe.permutations.csv.gz")


def study_of(x, **more):
    y = np.arange(N) % 2
    groups = pd.Series(np.resize(["F", "F", "M", "M"], N))
    return Study(x, y, ("HC", "SZ"), groups, {}, **more)


def table(**more):
    return study_of(np.random.default_rng(0).normal(size=(N, 4)), **more)


def series():
    return study_of(np.random.default_rng(0).normal(size=(N, 40, 3)))


def trained(study, plan, path, jobs=1):
    folder = prepared_folder(path, study, plan)
    return folder, *cross_validated(study, plan, folder, jobs=jobs)


@pytest.mark.parametrize(
    ("model", "options", "layer"),
    [
        ("bilstm", {"units": 3}, "bilstm/forward_lstm/lstm_cell"),
        ("transformer", {"width": 8, "heads": 2, "blocks": 1}, "attention_1/query"),
        ("cnn1d", {"filters": [4]}, "conv_1"),
    ],
)
def test_models_of_time_series_are_trained_and_probed(tmp_path, model, options, layer):
    plan = dataclasses.replace(PLAN, model=model, options=options)
    folder = train_fold(series(), plan, 0, 0, prepared_folder(tmp_path / "run", series(), plan))
    probe = ks.read_log(folder / "probe.csv")
    assert 0 <= json.loads((folder / "scores.json").read_text())["auc"] <= 1
    assert layer in set(probe.rows["layer"])
    assert set(probe.rows["batch_size"]) == {N // 2}
    assert sorted(probe.permutations["permutation"].unique()) == [1, 2]
    assert layer in set(ks.read_log(folder / "spectra.csv").rows["layer"])


@pytest.mark.slow
def test_two_processes_give_the_same_as_one(tmp_path):
    plan = dataclasses.replace(PLAN, model="cnn1d", options={"filters": [4]}, seeds=2)
    one, _, _ = trained(series(), plan, tmp_path / "one")
    two, _, _ = trained(series(), plan, tmp_path / "two", jobs=2)
    for name in FILES:
        assert (one / name).read_bytes() == (two / name).read_bytes()


def test_the_same_settings_resume_whatever_json_makes_of_them(tmp_path):
    plan = dataclasses.replace(PLAN, model="cnn1d", options={"filters": (4,)})
    folder, _, _ = trained(series(), plan, tmp_path / "run")
    before = (folder / "probe.csv").read_bytes()
    prepared_folder(folder, series(), plan, resume=True)
    cross_validated(series(), plan, folder)
    assert (folder / "probe.csv").read_bytes() == before
    other = dataclasses.replace(plan, options={"filters": (5,)})
    with pytest.raises(DataError, match="these differ: options"):
        prepared_folder(folder, series(), other, resume=True)


def test_no_fold_parts_the_examples_of_a_subject():
    ids = np.repeat([f"s{k}" for k in range(N // 2)], 2)
    study = dataclasses.replace(table(ids=ids), y=np.repeat(np.arange(N // 2) % 2, 2))
    for fold in range(2):
        train, test = split(study, PLAN, fold, 0)
        assert not set(ids[train]) & set(ids[test])
        assert sorted([*train, *test]) == list(range(N))
        assert study.y[test].mean() == pytest.approx(0.5, abs=0.11)


def test_groups_are_permuted_over_subjects_not_over_their_examples():
    ids = np.tile([f"s{k}" for k in range(N // 2)], 2)
    groups = pd.Series(np.tile(np.resize(["F", "M", "M"], N // 2), 2))
    found = permuted_groups(dataclasses.replace(table(ids=ids), groups=groups), PLAN)
    assert found.n_permutations == PLAN.permutations
    np.testing.assert_array_equal(found.mask[: N // 2], found.mask[N // 2 :])


def test_strata_have_equal_shares_in_every_fold():
    sites = np.resize(["A"] * 3 + ["B"], N)
    for fold in range(2):
        _, test = split(table(stratify=sites), PLAN, fold, 0)
        assert abs((sites[test] == "B").sum() - 2.5) <= 1


def test_groups_are_permuted_within_strata_and_the_null_says_so(tmp_path):
    study = table(within=np.arange(N) % 2)  # the target
    about = {"permuted_within": "diagnosis"}
    study = dataclasses.replace(study, about=about)
    found = permuted_groups(study, PLAN)
    masks = found.mask.reshape(N, PLAN.permutations + 1, 2)
    assert (masks[::2].sum(axis=0) == masks[::2, 0].sum(axis=0)).all()
    log = trained(study, PLAN, tmp_path / "run")[2]
    null = ks.analysis.compare_groups(log, "F", "M").attrs["null"]
    assert null.startswith("2 permutations over subjects of the same diagnosis, sizes kept")


def test_only_the_chosen_layers_and_quantities_are_recorded(tmp_path, monkeypatch):
    monkeypatch.setattr(run, "train_apart", run.train)  # as quick as it can be
    plan = dataclasses.replace(
        PLAN, layers=("hidden*",), quantities=("gradient",), permute_target=1
    )
    study = dataclasses.replace(table(), groups=pd.Series(np.array(["HC", "SZ"])[np.arange(N) % 2]))
    folder, _, probe = trained(study, plan, tmp_path / "run")
    for log in (probe, ks.read_log(folder / "spectra.csv")):
        assert set(log.rows["quantity"]) == {"gradient"}
        assert all(layer.startswith("hidden") for layer in log.layers)
    assert set(probe.permutations["quantity"]) == {"gradient"}


def test_layers_that_are_not_there_are_told_before_a_folder_is_made(tmp_path):
    plan = dataclasses.replace(PLAN, layers=("hidden*", "conv_*"))
    with pytest.raises(SettingsError, match=r"'conv_\*' fits none"):
        run.prepared_folder(tmp_path / "run", table(), plan)
    assert not list(tmp_path.iterdir())


def test_balanced_classes_weigh_equally_in_training_and_in_the_probe(tmp_path):
    study = dataclasses.replace(table(), y=(np.arange(N) % 5 == 0).astype(int))
    plain = trained(study, PLAN, tmp_path / "plain")[2]
    weighed = trained(study, dataclasses.replace(PLAN, balanced=True), tmp_path / "weighed")[2]

    def first(log):
        adjoint = log.rows.query("quantity == 'adjoint' and layer == 'output' and epoch == 0")
        return adjoint.query("group == 'all'")["frobenius_norm"].to_numpy()

    # All classes begin with equal probability, so each row of the adjoint has one length, 0.5 in
    # each class' entry, over n: weights 10/16 and 10/4 of 8 and 2 subjects.
    n = N // 2
    expected = np.sqrt(8 * (n / 16) ** 2 + 2 * (n / 4) ** 2) / np.sqrt(n)
    np.testing.assert_allclose(first(weighed) / first(plain), expected, rtol=0.05)


def test_patience_holds_subjects_out_and_stops(tmp_path):
    plan = dataclasses.replace(PLAN, epochs=60, patience=1, folds=2)
    study = table(ids=np.repeat([f"s{k}" for k in range(N // 2)], 2))
    study = dataclasses.replace(study, y=np.repeat(np.arange(N // 2) % 2, 2))
    folder = prepared_folder(tmp_path / "run", study, plan)
    train_fold(study, plan, 0, 0, folder)
    probe = ks.read_log(fold_folder(folder, 0, 0) / "probe.csv")
    train, _ = split(study, plan, 0, 0)
    assert len(train) == 10
    assert probe.rows["batch_size"].unique().tolist() == [6]  # two of five subjects are held out
    assert probe.rows["epoch"].max() < 60
    scores = json.loads((fold_folder(folder, 0, 0) / "scores.json").read_text())
    assert 0 <= scores["auc"] <= 1


def test_an_unknown_model_is_an_error():
    with pytest.raises(DataError, match=r"`model` must be one of mlp, bilstm.*'resnet'"):
        Plan(model="resnet")


def test_options_that_the_model_does_not_have_are_named_before_anything_is_written(tmp_path):
    plan = dataclasses.replace(PLAN, model="cnn1d", options={"filter": (4,)})
    with pytest.raises(DataError, match=r"`neuro\.models\.cnn1d`.*filter\. Try some of .*filters"):
        prepared_folder(tmp_path / "run", series(), plan)
    assert not (tmp_path / "run").exists()
