"""Spectra against float64 NumPy, over shapes, conditions, groups, methods."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_spectral.spectra import gram
from keras_spectral.spectra.factors import Factors
from keras_spectral.spectra.rows import group_rows
from keras_spectral.spectra.spectrum import spectra
from tests.oracles.mlp import singular_values

QUANTITIES = ("activation", "adjoint", "gradient")

TOLERANCE = 1e-6
"""Of sigma_1, for float32 data: float64 Gram matrices leave about 1e-8, so this has room."""


def oracle(a, d, quantity, k):
    a, d = (np.asarray(x, float).reshape(-1, x.shape[-1]) for x in (a, d))
    matrix = {"activation": a, "adjoint": d, "gradient": a.T @ d}[quantity]
    return singular_values(matrix, k), np.linalg.norm(matrix)


def by_name(blocks, j=0):
    """Return `{quantity: [(sigma [g, d], norm [g]) of each block]}` of one factor."""
    found = {}
    for block in blocks:
        for solved in block:
            for p, (factor, quantity) in enumerate(solved.names):
                if factor == j:
                    pair = solved.sigma[p].numpy(), solved.norm[p].numpy()
                    found.setdefault(quantity, []).append(pair)
    return found


def assert_equal_to_oracle(a, d, mask, method="auto", sizes=(32,), tolerance=TOLERANCE):
    rows = None if mask is None else group_rows(tf.constant(mask))
    factors = [Factors(tf.constant(a), tf.constant(d))]
    found = by_name(spectra(factors, rows, QUANTITIES, method, sizes))
    members = [np.arange(len(a))] + ([] if mask is None else [np.flatnonzero(m) for m in mask.T])
    for quantity in QUANTITIES:
        sigma = [values for block, _ in found[quantity] for values in block]
        norms = np.concatenate([norm for _, norm in found[quantity]])
        for values, norm, rows_of_group in zip(sigma, norms, members, strict=True):
            wanted, wanted_norm = oracle(a[rows_of_group], d[rows_of_group], quantity, len(values))
            scale = max(wanted[0], 1e-300)
            assert np.abs(values - wanted).max() <= tolerance * scale, (quantity, rows_of_group)
            assert norm == pytest.approx(wanted_norm, rel=1e-9, abs=1e-300)


shapes = st.tuples(*(st.integers(1, high) for high in (12, 4, 12, 12)))


@settings(max_examples=40, deadline=None)
@given(
    shape=shapes,
    n_groups=st.integers(0, 4),
    seed=st.integers(0, 2**31),
    method=st.sampled_from(["gram", "svd"]),
    expected=st.integers(1, 200),
)
def test_spectra_equal_numpy_for_any_shape_groups_and_side(shape, n_groups, seed, method, expected):
    n, s, i, o = shape
    rng = np.random.default_rng(seed)
    a, d = rng.standard_normal((n, s, i)).astype("f"), rng.standard_normal((n, s, o)).astype("f")
    mask = rng.random((n, n_groups)) < rng.random() if n_groups else None
    assert_equal_to_oracle(a, d, mask, method, sizes=(expected,))


def conditioned(rng, rows, width, kind):
    k = min(rows, width)
    left, _ = np.linalg.qr(rng.standard_normal((rows, k)))
    right, _ = np.linalg.qr(rng.standard_normal((width, k)))
    sigma = {
        "full rank": np.linspace(1, 2, k),
        "rank deficient": np.r_[np.ones((k + 1) // 2), np.zeros(k // 2)],
        "ill conditioned": np.geomspace(1, 1e-6, k),
        "zero": np.zeros(k),
    }[kind]
    return ((left * sigma) @ right.T).astype("f")


@pytest.mark.parametrize("kind", ["full rank", "rank deficient", "ill conditioned", "zero"])
@pytest.mark.parametrize("rows", [1, 7, 64, 300])
@pytest.mark.parametrize("width", [1, 64, 300])
def test_any_condition_is_exact_to_a_millionth_of_the_largest(kind, rows, width):
    rng = np.random.default_rng(rows * 1000 + width)
    a = conditioned(rng, rows, width, kind)[:, None]
    d = conditioned(rng, rows, 50, kind)[:, None]
    mask = np.stack([np.arange(rows) % 2 == 0, np.arange(rows) < rows // 3], axis=1)
    assert_equal_to_oracle(a, d, mask, sizes=(rows, rows / 2, rows / 3))


@pytest.mark.parametrize(("rows", "width"), [(2048, 16), (16, 2048), (2048, 1), (1, 2048)])
def test_two_thousand_rows_or_features_are_exact(rows, width):
    rng = np.random.default_rng(0)
    a = conditioned(rng, rows, width, "ill conditioned")[:, None]
    d = rng.standard_normal((rows, 1, 24)).astype("f")
    assert_equal_to_oracle(a, d, np.arange(rows)[:, None] % 3 == 0, sizes=(rows, rows / 3))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["full rank", "rank deficient", "ill conditioned", "zero"])
def test_a_square_of_two_thousand_is_exact(kind):
    rng = np.random.default_rng(0)
    a = conditioned(rng, 2048, 2048, kind)[:, None]
    d = conditioned(rng, 2048, 2048, kind)[:, None]
    assert_equal_to_oracle(a, d, None, sizes=(2048,))


def test_float64_data_keeps_its_digits():
    rng = np.random.default_rng(0)
    a, d = rng.standard_normal((9, 1, 5)), rng.standard_normal((9, 1, 4))
    a[:, 0, 4] = a[:, 0, 3]  # rank deficient: a Gram matrix would leave 1e-8
    assert_equal_to_oracle(a, d, np.ones((9, 1), bool), tolerance=1e-13)


@pytest.mark.parametrize("method", ["gram", "svd"])
@pytest.mark.parametrize("side", [1, 10_000])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_stays_in_its_group_and_its_layer(method, side, bad):
    rng = np.random.default_rng(0)
    a, d = (rng.standard_normal((6, 1, w)).astype("f") for w in (4, 3))
    broken = a.copy()
    broken[0, 0, 0] = bad
    mask = np.array([[1, 0]] * 3 + [[0, 1]] * 3, bool)
    factors = [Factors(tf.constant(x), tf.constant(d)) for x in (broken, a)]
    blocks = spectra(factors, group_rows(tf.constant(mask)), QUANTITIES, method, (side,))
    first, second = by_name(blocks, 0), by_name(blocks, 1)
    assert np.isnan(first["activation"][0][0]).all()
    assert np.isnan(first["gradient"][1][0][0]).all()
    assert np.isnan(first["gradient"][1][1][0])
    for quantity in QUANTITIES:
        assert np.isfinite(first[quantity][1][0][1]).all()
        assert all(np.isfinite(sigma).all() for sigma, _ in second[quantity])
    assert np.isfinite(first["adjoint"][0][0]).all()


def test_both_sides_are_really_taken(monkeypatch):
    taken = []
    monkeypatch.setattr(gram, "_row_gram", lambda x, f=gram._row_gram: taken.append("rows") or f(x))
    monkeypatch.setattr(
        gram, "_small_gram", lambda *a, f=gram._small_gram: taken.append("features") or f(*a)
    )
    rng = np.random.default_rng(0)
    a, d = (rng.standard_normal((6, 1, w)).astype("f") for w in (40, 30))
    assert_equal_to_oracle(a, d, None, sizes=(6,))
    assert taken == ["rows", "rows"]
    taken.clear()
    assert_equal_to_oracle(a, d, None, sizes=(600,))
    assert taken == ["features"] * 3


def test_example_gradients_replace_the_product():
    rng = np.random.default_rng(0)
    a, d = (rng.standard_normal((6, 2, w)).astype("f") for w in (4, 3))
    per_example = np.einsum("nsi,nso->nio", a, d)
    factors = [Factors(*(tf.constant(x) for x in (a, d, per_example)))]
    mask = tf.constant(np.arange(6)[:, None] < 2)
    (whole, _), (groups, _) = by_name(spectra(factors, group_rows(mask), ("gradient",)))["gradient"]
    assert whole[0] == pytest.approx(oracle(a, d, "gradient", 3)[0], rel=1e-5)
    assert groups[0] == pytest.approx(oracle(a[:2], d[:2], "gradient", 3)[0], rel=1e-5)


@settings(max_examples=30, deadline=None)
@given(shape=shapes, seed=st.integers(0, 2**31))
def test_identities_of_the_method(shape, seed):
    n, s, i, o = shape
    rng = np.random.default_rng(seed)
    a, d = rng.standard_normal((n, s, i)).astype("f"), rng.standard_normal((n, s, o)).astype("f")
    labels = rng.integers(0, 3, n)
    mask = labels[:, None] == np.arange(3)
    factors = [Factors(tf.constant(a), tf.constant(d))]
    found = by_name(spectra(factors, group_rows(tf.constant(mask)), QUANTITIES))
    whole = {q: found[q][0][0][0] for q in QUANTITIES}
    groups = {q: found[q][1][0] for q in QUANTITIES}
    slack = 1e-7 * (1 + whole["activation"].sum() * whole["adjoint"].sum())

    # group energies sum to the batch energy; no group exceeds the batch
    assert (groups["activation"] ** 2).sum() == pytest.approx((whole["activation"] ** 2).sum())
    k = min(groups["activation"].shape[1], len(whole["activation"]))
    assert (groups["activation"][:, :k] <= whole["activation"][:k] + slack).all()
    # the nuclear norm of the sum is at most the sum of nuclear norms
    assert whole["gradient"].sum() <= groups["gradient"].sum() + slack
    # Horn: partial sums of the gradient are bounded by those of the products
    k = min(len(values) for values in whole.values())
    horn = np.cumsum(whole["activation"][:k] * whole["adjoint"][:k])
    assert (np.cumsum(whole["gradient"][:k]) <= horn + slack).all()
