"""Summaries of spectra against formulas written out row by row."""

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from keras_spectral.summaries import (
    NORMS,
    SUMMARIES,
    SpectrumTable,
    effective_rank,
    energy,
    numerical_rank,
    size_correction,
)

TOLERANCE = 1e-12  # float64, a few operations per value


def table_of(*spectra, truncated=False, norms=None):
    """Return a padded table of spectra given as lists."""
    width = max((len(values) for values in spectra), default=0)
    sigma = np.full((len(spectra), width), np.nan)
    for row, values in zip(sigma, spectra, strict=True):
        row[: len(values)] = values
    if norms is None:
        norms = [math.sqrt(sum(v * v for v in values)) for values in spectra]
    return SpectrumTable(
        sigma, np.array(norms, dtype=float), np.broadcast_to(truncated, len(spectra))
    )


def by_hand(values, norm):
    """Return all summaries of one whole spectrum, by loops over its values."""
    total = sum(values)
    shares = [v / total for v in values if v > 0]
    return {
        "spectral_norm": values[0],
        "frobenius_norm": norm,
        "nuclear_norm": total,
        "effective_rank": math.exp(-sum(p * math.log(p) for p in shares)) if shares else math.nan,
        "stable_rank": norm**2 / values[0] ** 2 if values[0] else math.nan,
        "participation_ratio": sum(v**2 for v in values) ** 2 / sum(v**4 for v in values)
        if values[0]
        else math.nan,
        "numerical_rank": sum(v > 1e-5 * values[0] for v in values),
    }


magnitudes = st.floats(1e-9, 1e9) | st.just(0.0)
spectrum = st.lists(magnitudes, min_size=1, max_size=8).map(lambda v: sorted(v, reverse=True))


@given(st.lists(spectrum, min_size=1, max_size=5))
@example([[3.0]])
@example([[0.0, 0.0], [2.0]])
def test_every_summary_equals_its_formula(spectra):
    table = table_of(*spectra)
    for name, summary in SUMMARIES.items():
        expected = [by_hand(v, n)[name] for v, n in zip(spectra, table.frobenius_norm, strict=True)]
        np.testing.assert_allclose(summary(table), expected, rtol=TOLERANCE, err_msg=name)


@pytest.mark.parametrize("name", SUMMARIES)
def test_padding_changes_nothing(name):
    short, padded = table_of([3.0, 2.0, 1.0]), table_of([3.0, 2.0, 1.0], np.ones(9))
    assert SUMMARIES[name](short)[0] == SUMMARIES[name](padded)[0]


def test_a_single_value_has_rank_one():
    table = table_of([7.0])
    ranks = {name: float(f(table)[0]) for name, f in SUMMARIES.items() if name not in NORMS}
    assert ranks == dict.fromkeys(ranks, 1.0)


def test_equal_values_count_fully():
    table = table_of([2.0] * 6)
    for name in ("effective_rank", "stable_rank", "participation_ratio", "numerical_rank"):
        np.testing.assert_allclose(SUMMARIES[name](table), 6, rtol=TOLERANCE)


def test_the_effective_rank_is_that_of_roy_and_vetterli():
    # Other definitions in use give 1.06 (squares) and 1.00 (softmax) here.
    assert round(float(effective_rank(table_of([10.0, 1.0, 0.1]))[0]), 2) == 1.42


def test_a_zero_spectrum_has_norms_and_rank_zero_and_no_entropy():
    values = {name: float(f(table_of([0.0, 0.0]))[0]) for name, f in SUMMARIES.items()}
    assert [values[name] for name in (*NORMS, "numerical_rank")] == [0.0] * 4
    assert all(math.isnan(values[n]) for n in values if n not in (*NORMS, "numerical_rank"))


@pytest.mark.parametrize("truncated", [False, True])
def test_a_nan_spectrum_stays_nan_and_leaves_its_neighbours_alone(truncated):
    nan = [math.nan, math.nan]
    table = table_of(nan, [3.0, 4.0], norms=[math.nan, 5.0], truncated=[truncated, False])
    for name, summary in SUMMARIES.items():
        found = summary(table)
        assert math.isnan(found[0]), name
        assert np.isfinite(found[1]), name
    assert math.isnan(energy(table, 1)[0])


def test_an_empty_table_has_no_summaries():
    for width in (0, 3):
        empty = SpectrumTable(np.zeros((0, width)), np.zeros(0), np.zeros(0, dtype=bool))
        for summary in SUMMARIES.values():
            assert summary(empty).shape == (0,)


@pytest.mark.parametrize("scale", [1e-160, 1e-40, 1e40, 1e150])
def test_ranks_do_not_depend_on_the_scale(scale):
    unit, scaled = (table_of([3.0 * s, 2.0 * s, 1.0 * s], norms=[14**0.5 * s]) for s in (1, scale))
    for name in set(SUMMARIES) - set(NORMS):
        np.testing.assert_allclose(SUMMARIES[name](scaled), SUMMARIES[name](unit), rtol=1e-9)
    np.testing.assert_allclose(energy(scaled, 2), energy(unit, 2), rtol=1e-9)


# --- truncated spectra: exact or NaN, never a guess ---


def test_what_a_truncated_spectrum_cannot_tell_is_nan():
    found = {
        n: f(table_of([3.0, 2.0], norms=[4.0], truncated=True))[0] for n, f in SUMMARIES.items()
    }
    assert found["spectral_norm"] == 3.0
    assert found["frobenius_norm"] == 4.0
    assert found["stable_rank"] == pytest.approx(16 / 9)
    unknown = {name for name, value in found.items() if math.isnan(value)}
    assert unknown == {"nuclear_norm", "effective_rank", "participation_ratio", "numerical_rank"}


def test_a_truncated_spectrum_tells_its_rank_if_it_reached_the_noise():
    table = table_of([3.0, 2.0, 1e-9], [3.0, 2.0, 1.0], [0.0, 0.0, 0.0], truncated=True)
    np.testing.assert_array_equal(numerical_rank(table), [2, np.nan, 0])
    assert numerical_rank(table, tolerance=0.5)[1] == 2


@given(spectrum, st.integers(1, 9), st.integers(1, 9))
def test_energy_is_exact_where_enough_values_were_kept(values, kept, k):
    norm = math.sqrt(sum(v * v for v in values))
    truncated = kept < len(values)
    table = table_of(values[:kept], norms=[norm], truncated=truncated)
    found = energy(table, k)[0]
    if values[0] == 0 or (truncated and k > kept):
        assert math.isnan(found)
    else:
        assert found == pytest.approx(sum((v / norm) ** 2 for v in values[:k]), rel=1e-9)
        assert found <= 1


@given(
    hnp.arrays(
        float,
        hnp.array_shapes(min_dims=2, max_dims=2, max_side=4),
        elements=st.floats(0, 1e100) | st.just(math.nan),
    ),
    st.booleans(),
)
def test_no_table_makes_a_summary_warn(sigma, truncated):
    sigma = -np.sort(-sigma, axis=1)  # largest first, NaN last
    norms = np.sqrt(np.nansum(sigma**2, axis=1))  # warnings are errors in these tests
    table = SpectrumTable(sigma, norms, np.full(len(sigma), truncated))
    for summary in SUMMARIES.values():
        assert summary(table).shape == (len(sigma),)
    assert energy(table, 2).shape == (len(sigma),)


# --- sizes ---


def test_size_corrections_have_their_values():
    quantities = ["gradient", "adjoint", "activation"]
    found = size_correction(quantities, [4, 4, 4], [16, 16, 16], [100, 100, 100])
    np.testing.assert_array_equal(found, [4.0, 1.6, 0.1])


def test_an_unknown_quantity_has_no_size_correction():
    assert np.isnan(size_correction(["weight"], [1], [1], [1])[0])


@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_a_group_repeated_has_the_same_corrected_norms(repeats, positions, seed):
    rng = np.random.default_rng(seed)
    n_group, n_batch = 3, 20
    activation = rng.normal(size=(n_group, positions, 4))
    adjoint = rng.normal(size=(n_group, positions, 5)) / n_batch  # of a batch-mean loss

    def corrected(times):
        rows = [
            np.tile(part, (times, 1, 1)).reshape(-1, part.shape[2])
            for part in (activation, adjoint)
        ]
        matrices = {"activation": rows[0], "adjoint": rows[1], "gradient": rows[0].T @ rows[1]}
        return [
            np.linalg.norm(matrix, 2)
            * size_correction([q], [n_group * times], [n_batch], [len(rows[0])])[0]
            for q, matrix in matrices.items()
        ]

    np.testing.assert_allclose(corrected(repeats), corrected(1), rtol=1e-9)
