"""Simulated time series: what is planted is there, exactly there, and nothing else is."""

import keras
import numpy as np
import pytest
from scipy.stats import ttest_ind
from sklearn.metrics import roc_auc_score

from keras_spectral.neuro import models
from keras_spectral.neuro.simulate import simulated_networks, simulated_time_series
from keras_spectral.neuro.simulate.time_series import (
    AMPLITUDE_SPREAD,
    AUTOCORRELATION,
    DIAGNOSIS_NETWORK,
    GROUP_NETWORKS,
    NETWORK_SD,
)

ROUNDING = 1e-5  # of float32 values near 10
MANY = 1000  # subjects, so that a mean logarithm of amplitudes is known to about one percent


def log_amplitudes(x):
    """Logarithm of each subject's standard deviation over time, per network: `[n, k]`."""
    return np.log((x @ simulated_networks(x.shape[2]).T).std(axis=1))


def shifts(x, members):
    """Differences between members and others, and the p-value of each."""
    values = log_amplitudes(x)
    difference = values[members].mean(axis=0) - values[~members].mean(axis=0)
    return difference, ttest_ind(values[members], values[~members]).pvalue


@pytest.mark.parametrize("n_regions", [8, 20, 53])
def test_networks_are_orthonormal_for_any_number_of_regions(n_regions):
    networks = simulated_networks(n_regions)
    np.testing.assert_allclose(networks @ networks.T, np.eye(len(NETWORK_SD)), atol=1e-12)


def test_the_group_difference_lies_in_the_group_networks_and_nowhere_else():
    null, planted = (simulated_time_series(group_effect=g)[0].astype(float) for g in (0, 1))
    difference = planted - null
    networks = simulated_networks()[GROUP_NETWORKS]
    np.testing.assert_allclose(difference - difference @ networks.T @ networks, 0, atol=ROUNDING)


def test_amplitudes_of_the_group_are_larger_by_the_size_asked_for_and_only_there():
    x, phenotype = simulated_time_series(n_subjects=MANY, effect=0, group_effect=1)
    difference, p = shifts(x, (phenotype["site"] == "B").to_numpy())
    # Noise in the direction of a network makes the ratio smaller.
    np.testing.assert_allclose(difference[GROUP_NETWORKS], np.log(2), rtol=0.2)
    assert np.delete(p, np.r_[GROUP_NETWORKS]).min() > 1e-3


def test_diagnosis_enlarges_the_amplitude_of_its_network_and_no_other():
    x, phenotype = simulated_time_series(n_subjects=MANY, effect=2, group_effect=0)
    difference, p = shifts(x, (phenotype["diagnosis"] == "SZ").to_numpy())
    assert difference[DIAGNOSIS_NETWORK] == pytest.approx(2 * AMPLITUDE_SPREAD, rel=0.2)
    assert np.delete(p, DIAGNOSIS_NETWORK).min() > 1e-3


def test_series_are_stationary_and_autocorrelated_around_zero():
    x, _ = simulated_time_series(n_subjects=MANY, n_time=40)
    spread = x.std(axis=(0, 2))
    neighbours = np.corrcoef(x[:, :-1].ravel(), x[:, 1:].ravel())[0, 1]
    assert neighbours == pytest.approx(AUTOCORRELATION, abs=0.02)
    np.testing.assert_allclose(spread, spread.mean(), rtol=0.05)
    np.testing.assert_allclose(x.mean(axis=(0, 2)), 0, atol=0.1)


def test_standardised_regions_still_show_the_group_in_the_rank_of_their_correlation():
    """As loaded, no norm is left that could."""
    x, phenotype = simulated_time_series(effect=0)
    correlations = np.array([np.corrcoef(own.T) for own in x])
    shares = np.linalg.eigvalsh(correlations) / x.shape[2]
    ranks = 1 / (shares**2).sum(axis=1)  # participation ratio
    of_b = (phenotype["site"] == "B").to_numpy()
    assert ttest_ind(ranks[of_b], ranks[~of_b]).statistic < -4


def make_cnn1d(n_time, n_regions):
    return models.cnn1d(n_time, n_regions, 2, filters=(16, 32))


def make_bilstm(n_time, n_regions):
    return models.bilstm(n_time, n_regions, 2, window=4, encoder=16, units=8)


def make_transformer(n_time, n_regions):
    return models.transformer(n_time, n_regions, 2, window=4, width=32, feed_forward=64, blocks=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "epochs", "rate"),
    [(make_cnn1d, 12, 0.003), (make_bilstm, 9, 0.003), (make_transformer, 12, 0.001)],
)
def test_small_networks_learn_the_diagnosis_of_new_subjects(make, epochs, rate):
    assert np.mean([auc(make, epochs, rate, seed) for seed in range(3)]) > 0.7


def auc(make, epochs, rate, seed):
    (x, y), (new_x, new_y) = (examples(100, seed), examples(200, 1000 + seed))
    keras.utils.set_random_seed(seed)
    model = make(*x.shape[1:])
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy")
    model.fit(x, y, epochs=epochs, batch_size=16, verbose=0)
    return roc_auc_score(new_y, np.asarray(model(new_x))[:, 1])


def examples(n_subjects, seed):
    x, phenotype = simulated_time_series(n_subjects=n_subjects, seed=seed)
    x = (x - x.mean(axis=1, keepdims=True)) / x.std(axis=1, keepdims=True)
    return x, (phenotype["diagnosis"] == "SZ").to_numpy(int)
