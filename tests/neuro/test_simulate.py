"""Simulated subjects: what is planted is there, exactly there, and nothing else is."""

import numpy as np
import pytest
from scipy.stats import ttest_ind
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from keras_spectral.errors import DataError
from keras_spectral.neuro.simulate import (
    DIAGNOSIS_MODE,
    FACTORS,
    GROUP_MODES,
    MODE_SD,
    NOISE_SD,
    simulated_fnc,
    simulated_modes,
)

ROUNDING = 1e-6  # of float32 values below 10
MANY = 4000  # subjects, so that a standard deviation is known to about one percent


def spreads(x, members):
    return (x[members] @ simulated_modes(x.shape[1]).T).std(axis=0)


def test_shapes_names_and_sizes_are_those_asked_for():
    x, phenotype = simulated_fnc(n_subjects=90, n_features=50, group_size=30)
    assert (x.shape, x.dtype) == ((90, 50), np.float32)
    assert phenotype.columns.tolist() == ["id", "diagnosis", "sex", "site"]
    assert phenotype["id"].is_unique
    assert phenotype["site"].value_counts().to_dict() == {"A": 60, "B": 30}
    assert phenotype["diagnosis"].value_counts().to_dict() == {"HC": 45, "SZ": 45}


def test_a_seed_gives_the_same_subjects_and_another_gives_others():
    first, again, other = (simulated_fnc(seed=seed)[0] for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("n_features", [10, 11, 378, 400])
def test_modes_are_orthonormal_for_any_number_of_features(n_features):
    modes = simulated_modes(n_features)
    np.testing.assert_allclose(modes @ modes.T, np.eye(len(MODE_SD)), atol=1e-12)


@pytest.mark.parametrize("factor", ["site", "sex"])
def test_the_group_difference_lies_in_the_group_modes_of_the_group_and_nowhere_else(factor):
    null, _ = simulated_fnc(group_effect=0, factor=factor)
    planted, phenotype = simulated_fnc(group_effect=1, factor=factor)
    difference = planted.astype(np.float64) - null
    members = (phenotype[factor] == FACTORS[factor][1]).to_numpy()
    modes = simulated_modes()[GROUP_MODES]
    outside = difference - difference @ modes.T @ modes
    assert not difference[~members].any()
    assert np.linalg.norm(difference[members], axis=1).min() > 0.1
    np.testing.assert_allclose(outside, 0, atol=ROUNDING)


def test_the_group_is_wider_by_the_size_asked_for_and_only_there():
    x, phenotype = simulated_fnc(n_subjects=MANY, effect=0, group_effect=1)
    ratio = spreads(x, phenotype["site"] == "B") / spreads(x, phenotype["site"] == "A")
    expected = np.ones(len(MODE_SD))
    expected[GROUP_MODES] = np.sqrt((4 + NOISE_SD**2) / (1 + NOISE_SD**2))
    np.testing.assert_allclose(ratio, expected, rtol=0.1)


def test_without_a_group_effect_the_values_do_not_depend_on_the_groups():
    settings = {"n_subjects": 90, "group_effect": 0, "seed": 2}
    x, phenotype = simulated_fnc(**settings, factor="site", group_size=30)
    other_x, other_phenotype = simulated_fnc(**settings, factor="sex", group_size=60)
    np.testing.assert_array_equal(x, other_x)
    assert not phenotype["site"].equals(other_phenotype["site"])


def test_without_a_group_effect_the_largest_singular_values_agree_in_expectation():
    differences = [spectrum_difference(group_effect=0, seed=seed) for seed in range(60)]
    z = np.mean(differences, axis=0) / (np.std(differences, axis=0, ddof=1) / np.sqrt(60))
    assert np.abs(z).max() < 4  # of five values; one in 3000 by chance


def test_with_a_group_effect_the_energy_of_the_group_is_larger_in_every_study():
    differences = [spectrum_difference(group_effect=2, seed=seed).sum() for seed in range(20)]
    assert min(differences) > 0


def spectrum_difference(**settings):
    x, phenotype = simulated_fnc(n_subjects=60, n_features=66, **settings)
    centred = x - x.mean(axis=0)
    halves = (centred[phenotype["site"] == site] for site in ("B", "A"))
    of_b, of_a = (np.linalg.svd(half, compute_uv=False)[:5] for half in halves)
    return of_b - of_a


def test_diagnosis_shifts_its_mode_and_no_other():
    x, phenotype = simulated_fnc(n_subjects=MANY, effect=1.5, group_effect=0)
    scores = x @ simulated_modes().T
    patients = (phenotype["diagnosis"] == "SZ").to_numpy()
    shift = scores[patients].mean(axis=0) - scores[~patients].mean(axis=0)
    p = ttest_ind(scores[patients], scores[~patients]).pvalue
    assert shift[DIAGNOSIS_MODE] == pytest.approx(1.5, abs=0.15)
    assert np.delete(p, DIAGNOSIS_MODE).min() > 1e-3


def test_groups_are_independent_of_diagnosis():
    shares = []
    for seed in range(200):
        _, phenotype = simulated_fnc(n_subjects=40, n_features=10, group_size=10, seed=seed)
        shares.append((phenotype.query("site == 'B'")["diagnosis"] == "SZ").mean())
    assert np.mean(shares) == pytest.approx(0.5, abs=0.04)
    assert np.std(shares) > 0.1  # drawn at random, not balanced


def test_a_linear_classifier_reaches_an_auc_near_080_by_default_and_chance_without_effect():
    default = [auc(seed=seed) for seed in range(6)]
    chance = [auc(seed=seed, effect=0) for seed in range(6)]
    assert 0.75 < np.mean(default) < 0.88
    assert 0.4 < np.mean(chance) < 0.6


def auc(**settings):
    x, phenotype = simulated_fnc(**settings)
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500))
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    return cross_val_score(
        classifier, x, phenotype["diagnosis"], cv=folds, scoring="roc_auc"
    ).mean()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_features": 9}, "`n_features` must be at least 10"),
        ({"factor": "age"}, "`factor` must be 'site' or 'sex'"),
        ({"factor": "diagnosis"}, "The difference between diagnoses is `effect`"),
        ({"group_size": 0}, "`group_size` must leave"),
        ({"group_size": 90}, "`group_size` must leave"),
        ({"n_subjects": 1}, "`group_size` must leave"),
        ({"group_effect": -1}, "`group_effect` must be above -1"),
        ({"group_effect": float("nan")}, "`group_effect` must be above -1"),
    ],
)
def test_impossible_settings_are_an_error(settings, message):
    with pytest.raises(DataError, match=message):
        simulated_fnc(**settings)
