"""Exact p-values by hand, against loops, against SciPy, and under the null."""

import numpy as np
import pytest
from scipy.stats import false_discovery_control

from keras_spectral.analysis.permutation import (
    false_discovery_rates,
    max_t_adjusted_p,
    permutation_p,
    z_scores,
)

EXACT = np.zeros(1)
KS_99 = 1.63
"""99 % quantile of the Kolmogorov statistic times the root of the sample size."""


@pytest.mark.parametrize(
    ("values", "p"),
    [
        ([3, 0, -1, -2], 1 / 4),  # mean 0, distances 3 0 1 2
        ([2, 1, 0, -3], 2 / 4),  # mean 0, distances 2 1 0 3: two-sided
        ([10, 11, 12, 15], 2 / 4),  # mean 12, distances 2 1 0 3: the null mean need not be zero
        ([0, 0, 1, -1], 4 / 4),
    ],
)
def test_p_is_the_share_of_labellings_as_far_from_the_mean(values, p):
    assert permutation_p(np.array([values], dtype=float), EXACT) == [p]


def test_rounding_does_not_break_a_tie():
    values = np.array([[1.0, 1.0 + 1e-12, -1.0, -1.0 - 1e-12]])
    assert permutation_p(values, EXACT + 1e-9) == [1.0]


def test_no_spread_gives_p_of_one_and_no_z():
    values = np.full((1, 20), 7.0)
    assert permutation_p(values, EXACT + 1e-6) == [1.0]
    assert max_t_adjusted_p(values, EXACT + 1e-6) == [1.0]
    assert np.isnan(z_scores(values, EXACT + 1e-6)).all()


def test_a_permutation_without_a_value_is_left_out():
    with_gap = np.array([[3.0, 0.0, np.nan, -1.0, -2.0]])
    assert permutation_p(with_gap, EXACT) == permutation_p(with_gap[:, [0, 1, 3, 4]], EXACT)


@pytest.mark.parametrize("values", [[np.nan, 1.0, 2.0], [1.0, np.nan, np.nan]])
def test_nothing_to_compare_gives_no_p(values):
    values = np.array([values])
    assert np.isnan(permutation_p(values, EXACT)).all()
    assert np.isnan(max_t_adjusted_p(values, EXACT)).all()


def test_z_is_measured_against_the_permutations_alone():
    values = np.array([[5.0, 1.0, 2.0, 3.0]])
    assert z_scores(values, EXACT) == pytest.approx([3.0])  # (5 - 2) / 1


def test_adjusted_p_equals_a_naive_loop():
    generator = np.random.default_rng(1)
    values = generator.normal(size=(8, 40)) + generator.normal(size=40)
    values[2] = 4.0
    values[0, 0] += 3.0
    expected = _naive_max_t(values)
    np.testing.assert_array_equal(max_t_adjusted_p(values, np.full(8, 1e-9)), expected)
    assert len(set(expected)) > 3


def test_labellings_without_any_value_do_not_make_adjusted_p_smaller():
    generator = np.random.default_rng(3)
    values = generator.normal(size=(6, 100))
    values[:, 0] += 2.0
    values[:, 50:] = np.nan
    tolerance = np.zeros(6)
    np.testing.assert_array_equal(
        max_t_adjusted_p(values, tolerance), max_t_adjusted_p(values[:, :50], tolerance)
    )


def test_adjusted_p_is_never_below_p():
    generator = np.random.default_rng(2)
    values = generator.normal(size=(30, 20))
    values[generator.random(values.shape) < 0.2] = np.nan
    tolerance = np.zeros(30)
    p, adjusted = permutation_p(values, tolerance), max_t_adjusted_p(values, tolerance)
    assert (adjusted[~np.isnan(p)] >= p[~np.isnan(p)]).all()
    assert np.isnan(adjusted[np.isnan(p)]).all()


def test_q_equals_scipy():
    p = np.random.default_rng(3).random(50) ** 2
    np.testing.assert_allclose(false_discovery_rates(p), false_discovery_control(p))


def test_q_passes_over_rows_without_p():
    p = np.array([0.01, np.nan, 0.04, 0.5])
    q = false_discovery_rates(p)
    assert np.isnan(q[1])
    np.testing.assert_allclose(q[[0, 2, 3]], false_discovery_control(p[[0, 2, 3]]))


def test_q_without_any_p_is_nan():
    assert np.isnan(false_discovery_rates(np.full(3, np.nan))).all()


@pytest.mark.parametrize("distribution", ["normal", "exponential", "standard_cauchy"])
def test_p_is_uniform_when_labellings_are_exchangeable(distribution):
    values = getattr(np.random.default_rng(4), distribution)(size=(4000, 20))
    p = permutation_p(values, np.zeros(4000))
    grid = np.arange(1, 21) / 20
    reached = (p[:, None] <= grid + 1e-9).mean(axis=0)
    assert np.abs(reached - grid).max() < KS_99 / np.sqrt(4000)


def test_adjusted_p_keeps_the_family_wise_error_under_dependence():
    generator = np.random.default_rng(5)
    shared = generator.normal(size=(1500, 1, 20))
    tables = generator.normal(size=(1500, 10, 20)) + shared
    tolerance = np.zeros(10)
    smallest = np.array([max_t_adjusted_p(table, tolerance).min() for table in tables])
    plain = np.array([permutation_p(table, tolerance).min() for table in tables])
    assert (smallest <= 0.05).mean() < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 1500)
    assert (smallest <= 0.05).mean() > 0.02  # not vacuous
    assert (plain <= 0.05).mean() > 0.2  # and needed


def _naive_max_t(values):
    scores = {}
    for row, line in enumerate(values):
        spread = np.std(line)
        if spread > 0:
            scores[row] = [abs(value - np.mean(line)) / spread for value in line]
    adjusted = []
    for row in range(len(values)):
        if row not in scores:
            adjusted.append(1.0)
            continue
        largest = [max(score[j] for score in scores.values()) for j in range(values.shape[1])]
        adjusted.append(np.mean([m >= scores[row][0] - 1e-9 for m in largest]))
    return adjusted
