"""Simulated tables of FreeSurfer: what is planted is there, exactly there, and nothing else is."""

import numpy as np
import pytest
from scipy.stats import ttest_ind
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from keras_spectral.neuro.simulate import simulated_freesurfer, simulated_region_modes
from keras_spectral.neuro.simulate.freesurfer import (
    DIAGNOSIS_MODE,
    GROUP_MODES,
    MODE_SD,
    NOISE_SD,
    SPREAD,
    simulated_regions,
)

ROUNDING = 1e-4  # of float32 values, in standard deviations of a thickness
MANY = 4000  # subjects, so that a standard deviation is known to about one percent


def standardized(x):
    """Undo the exponential: what is added up, in standard deviations of each region."""
    regions = simulated_regions()
    spread = regions["measure"].map(SPREAD).to_numpy()
    return np.log(x.to_numpy(np.float64) / regions["typical"].to_numpy()) / spread


def test_values_are_positive_and_of_the_size_of_real_ones():
    x, phenotype = simulated_freesurfer()
    assert x.index.tolist() == phenotype["id"].tolist()
    assert x["Left-Hippocampus"].between(2000, 7000).all()
    assert x["rh_insula_thickness"].between(2, 4).all()
    relative = (x.std() / x.mean()).groupby(simulated_regions()["measure"]).mean()
    np.testing.assert_allclose(relative[["volume", "thickness"]], list(SPREAD.values()), rtol=0.5)


def test_modes_are_orthonormal():
    modes = simulated_region_modes()
    np.testing.assert_allclose(modes @ modes.T, np.eye(len(MODE_SD)), atol=1e-12)


def test_the_group_difference_lies_in_the_group_modes_and_nowhere_else():
    null, planted = (standardized(simulated_freesurfer(group_effect=g)[0]) for g in (0, 1))
    difference = planted - null
    modes = simulated_region_modes()[GROUP_MODES]
    np.testing.assert_allclose(difference - difference @ modes.T @ modes, 0, atol=ROUNDING)


def test_the_group_is_wider_by_the_size_asked_for_and_only_there():
    x, phenotype = simulated_freesurfer(n_subjects=MANY, effect=0, group_effect=1)
    scores = standardized(x) @ simulated_region_modes().T
    of_b = (phenotype["site"] == "B").to_numpy()
    ratio = scores[of_b].std(axis=0) / scores[~of_b].std(axis=0)
    expected = np.ones(len(MODE_SD))
    variance = MODE_SD[GROUP_MODES] ** 2
    expected[GROUP_MODES] = np.sqrt((4 * variance + NOISE_SD**2) / (variance + NOISE_SD**2))
    np.testing.assert_allclose(ratio, expected, rtol=0.1)
    assert ttest_ind(scores[of_b], scores[~of_b], equal_var=False).pvalue.min() > 1e-3


def test_diagnosis_shifts_its_mode_and_no_other():
    x, phenotype = simulated_freesurfer(n_subjects=MANY, effect=1.5, group_effect=0)
    scores = standardized(x) @ simulated_region_modes().T / MODE_SD
    patients = (phenotype["diagnosis"] == "SZ").to_numpy()
    shift = scores[patients].mean(axis=0) - scores[~patients].mean(axis=0)
    p = ttest_ind(scores[patients], scores[~patients]).pvalue
    assert shift[DIAGNOSIS_MODE] == pytest.approx(1.5, abs=0.15)
    assert np.delete(p, DIAGNOSIS_MODE).min() > 1e-3


def test_patients_have_larger_ventricles_and_smaller_hippocampi():
    x, phenotype = simulated_freesurfer(n_subjects=MANY, group_effect=0)
    patients = (phenotype["diagnosis"] == "SZ").to_numpy()
    ratio = x[patients].mean() / x[~patients].mean()
    assert ratio["Left-Lateral-Ventricle"] > 1.02
    assert ratio["Right-Hippocampus"] < 0.98
    assert ratio["lh_superiorfrontal_thickness"] < 0.99


def test_a_linear_classifier_reaches_an_auc_near_090_by_default_and_chance_without_effect():
    assert np.mean([auc(seed) for seed in range(5)]) == pytest.approx(0.9, abs=0.05)
    assert np.mean([auc(seed, effect=0) for seed in range(5)]) == pytest.approx(0.5, abs=0.1)


def auc(seed, **settings):
    (x, phenotype), (new_x, new_phenotype) = (
        simulated_freesurfer(n_subjects=n, seed=s, **settings)
        for n, s in ((90, seed), (400, 1000 + seed))
    )
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500))
    classifier.fit(x, phenotype["diagnosis"])
    return roc_auc_score(new_phenotype["diagnosis"], classifier.predict_proba(new_x)[:, 1])
