"""The largest singular values from a subspace: near, and never further away than is said."""

import numpy as np
import pytest
import tensorflow as tf

from keras_spectral.matrices.factors import Factors, WeightMatrices
from keras_spectral.matrices.members import Members
from keras_spectral.matrices.patches import Patches
from keras_spectral.settings import Spectra
from keras_spectral.spectra import subspace
from keras_spectral.spectra.subspace import COLD_PASSES, OVERSAMPLING, Subspace
from keras_spectral.summaries import sigma_errors
from tests.oracles.patches import patches as looked_up
from tests.spectra.forcing import by_name, solved, step_of

K, COLUMNS = 6, 10

NORM = 1e-9
"""Relative, of Frobenius norms: sums of squares in float64."""


def singular_values_of(kind, rng):
    """Singular values `[40]` of a kind."""
    k = np.arange(40.0)
    return {
        "flat": np.ones(40),
        "slow": (1 + k) ** -0.5,
        "fast": 0.6**k,
        "steep": 0.1**k,
        "clustered": np.where(k < 8, 1.0, 1e-3),
        "tiny gap": np.where(k < 5, 1.0, 1.0 - 1e-9),
        "gap below what is wanted": np.where(k < COLUMNS + 2, 1.0 - 1e-6 * k, 1e-4),
        "rank 3": np.where(k < 3, 1.0 + k[::-1], 0.0),
        "zero": np.zeros(40),
        "random": np.sort(rng.random(40))[::-1],
    }[kind]


KINDS = (
    *("flat", "slow", "fast", "steep", "clustered", "tiny gap"),
    *("gap below what is wanted", "rank 3", "zero", "random"),
)


def matrix(kind, rng, n=60, w=40):
    left = np.linalg.qr(rng.standard_normal((n, w)))[0]
    right = np.linalg.qr(rng.standard_normal((w, w)))[0]
    scale = 10.0 ** rng.integers(-6, 6)
    return scale * (left * singular_values_of(kind, rng)) @ right.T


def follower(n_matrices, quantity="activation"):
    return Subspace(tuple(((str(j), "kernel"), quantity) for j in range(n_matrices)), 1.0, COLUMNS)


def reduced(method, factors, mask, state):
    weights = {(str(j), "kernel"): WeightMatrices(each) for j, each in enumerate(factors)}
    return method.reduce(weights, Members(mask), state)


def found_by(method, activations, mask, state):
    """Return `(sigma, norm, error)` `[g, p, …]` of activations `[n, 1, w]` of one step."""
    factors = [Factors(tf.constant(a), tf.zeros([len(a), 1, 1], a.dtype)) for a in activations]
    statistic = reduced(method, factors, mask, state)
    (found,) = method.solve(statistic[None], mask[None])
    shape = mask.shape[1], len(activations)
    sigma, norm, residual = np.zeros((*shape, COLUMNS)), np.zeros(shape), np.zeros(shape)
    at = found.groups, found.wanted
    sigma[at], norm[at], residual[at] = found.sigma, found.norm, found.residual
    errors = sigma_errors(sigma.reshape(-1, COLUMNS), residual.reshape(-1)).reshape(sigma.shape)
    return sigma[..., :K], norm, errors[..., :K]


def exact_values(a):
    values = np.linalg.svd(a, compute_uv=False)[:K]
    return np.pad(values, (0, K - len(values)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_error_exceeds_its_bound(dtype):
    rng = np.random.default_rng(0)
    method, checked = follower(50), 0
    for _ in range(5 if dtype == "float64" else 10):
        state = {}
        mask = np.stack([np.ones(60, bool), rng.random(60) < 0.5, rng.random(60) < 0.1], axis=1)
        for _ in range(2):  # the second step begins with the bases of the first, here strangers
            kinds = [KINDS[j % len(KINDS)] for j in range(50)]
            made = [matrix(kind, rng)[:, None].astype(dtype) for kind in kinds]
            sigma, norm, error = found_by(method, made, mask, state)
            for g, own in enumerate(mask.T):
                for p, a in enumerate(made):
                    wide = a[own, 0].astype(float)
                    exact = exact_values(wide)
                    assert (np.abs(exact - sigma[g, p]) <= error[g, p]).all(), (kinds[p], g)
                    assert norm[g, p] == pytest.approx(np.linalg.norm(wide), rel=NORM)
                    checked += 1
    assert checked >= 1000


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_error_of_a_gradient_exceeds_its_bound(dtype):
    rng = np.random.default_rng(0)
    method, checked = follower(20, "gradient"), 0
    mask = np.stack([np.ones(20, bool), rng.random(20) < 0.5, rng.random(20) < 0.2], axis=1)
    members, state = Members(mask), {}
    for _ in range(3):
        factors = [
            Factors(*(tf.constant(rng.standard_normal((20, s, w)), dtype) for w in (40, 30)))
            for s in (1, 4) * 10
        ]
        statistic = reduced(method, factors, mask, state)
        (found,) = method.solve(statistic[None], mask[None])
        errors = sigma_errors(found.sigma, found.residual)
        for sigma, error, norm, p, g in zip(
            found.sigma, errors, found.norm, found.wanted, found.groups, strict=True
        ):
            a, d = (np.asarray(x, float)[members.mask[:, g]] for x in factors[p][:2])
            gradient = np.einsum("nsi,nso->io", a, d)
            assert (np.abs(exact_values(gradient) - sigma[:K]) <= error[:K]).all()
            assert norm == pytest.approx(np.linalg.norm(gradient), rel=NORM)
            checked += 1
    assert checked == 3 * 20 * 3


def test_bases_follow_what_changes_little():
    rng = np.random.default_rng(1)
    method, state = follower(1), {}
    mask = np.stack([np.ones(60, bool), np.arange(60) < 30], axis=1)
    a, change = matrix("slow", rng), matrix("slow", rng)
    worst = []
    for _ in range(12):
        a = a + 1e-3 * np.linalg.norm(a, 2) / np.linalg.norm(change, 2) * change
        sigma, _, _ = found_by(method, [a[:, None]], mask, state)
        exact = [exact_values(a[own]) for own in mask.T]
        worst.append(np.abs(sigma[:, 0] / np.array(exact) - 1).max())
    assert worst[-1] < 1e-3
    assert worst[-1] < worst[0]


def test_the_first_step_takes_several_passes_and_the_others_one(monkeypatch):
    passes, original = [], subspace._iterated
    monkeypatch.setattr(subspace, "_iterated", lambda *each: passes.append(None) or original(*each))
    rng, method, state = np.random.default_rng(1), follower(2), {}
    mask = np.ones((60, 1), bool)
    for wanted in (COLD_PASSES, 1, 1):
        passes.clear()
        found_by(method, [matrix("slow", rng)[:, None] for _ in range(2)], mask, state)
        assert len(passes) == wanted
    # As many groups as never before begin anew.
    passes.clear()
    found_by(
        method, [matrix("slow", rng)[:, None] for _ in range(2)], np.ones((60, 2), bool), state
    )
    assert len(passes) == COLD_PASSES


def test_passes_at_the_first_step_find_what_one_pass_would_not(monkeypatch):
    a, mask = matrix("slow", np.random.default_rng(1)), np.ones((60, 1), bool)
    errors = []
    for passes in (1, COLD_PASSES):
        monkeypatch.setattr(subspace, "COLD_PASSES", passes)
        sigma, *_ = found_by(follower(1), [a[:, None]], mask, {})
        errors.append(np.abs(sigma[0, 0] / exact_values(a) - 1).max())
    assert errors[1] < 0.5 * errors[0]


@pytest.mark.parametrize("rank", [0, 1, 3])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_columns_that_depend_on_others_are_found_to_be_nothing(rank, dtype):
    """A basis of 10 columns meets matrices of lower rank, and grows with them later."""
    rng = np.random.default_rng(0)
    method, state, mask = follower(1), {}, np.ones((60, 1), bool)
    tolerance = 1e-5 if dtype == "float32" else 1e-13  # of sigma_1, roundings of each type
    for _ in range(3):
        low = (rng.standard_normal((60, rank)) @ rng.standard_normal((rank, 40))).astype(dtype)
        sigma, norm, _ = found_by(method, [low[:, None]], mask, state)
        low = low.astype(float)
        exact = exact_values(low)
        assert np.abs(sigma[0, 0] - exact).max() <= tolerance * max(exact[0], 1e-300)
        assert norm[0, 0] == pytest.approx(np.linalg.norm(low), rel=NORM)
    a = matrix("fast", rng)[:, None].astype(dtype)
    for _ in range(3):
        sigma, *_ = found_by(method, [a], mask, state)
    np.testing.assert_allclose(sigma[0, 0], exact_values(a[:, 0].astype(float)), rtol=0.01)


@pytest.mark.parametrize("form", ["rows", "patches", "patches of two calls", "dilated patches"])
def test_forms_of_a_matrix_agree_with_numpy(form, device):
    rng = np.random.default_rng(2)
    n, classes = 5, 4
    images = rng.standard_normal((n, 7, 6, 3))
    kernel, dilation = (2, 3), (2, 1) if form == "dilated patches" else (1, 1)
    how = kernel, (1, 1), dilation, "same"
    calls = [images, images[:, ::-1].copy()] if form == "patches of two calls" else [images]
    rows = np.concatenate([looked_up(x, *how) for x in calls], axis=1)
    patches = Patches(tuple(map(tf.constant, calls)), *how, 1)
    activation = tf.constant(rows) if form == "rows" else patches
    delta = rng.standard_normal((*rows.shape[:2], classes))
    factors = {("conv", "kernel"): WeightMatrices(Factors(activation, tf.constant(delta)))}
    mask = np.array([[1, 1, 0], [1, 0, 1], [1, 0, 0], [1, 1, 1], [1, 0, 1]], bool)
    wanted = tuple((("conv", "kernel"), q) for q in ("activation", "gradient"))
    method = Subspace(wanted, 1.0, rows.shape[-1])  # misses nothing
    statistic = method.reduce(factors, Members(mask), {})
    (found,) = method.solve(statistic[None], mask[None])
    assert len(found.groups) == 6
    for p, g, sigma, norm, missed in zip(
        found.wanted, found.groups, found.sigma, found.norm, found.residual, strict=True
    ):
        a = rows[mask[:, g]].reshape(-1, rows.shape[-1])
        exact = a if p == 0 else a.T @ delta[mask[:, g]].reshape(-1, classes)
        values = np.linalg.svd(exact, compute_uv=False)
        np.testing.assert_allclose(sigma[: len(values)], values, atol=1e-6 * values[0])
        assert norm == pytest.approx(np.linalg.norm(exact), rel=NORM)
        assert missed < 1e-6 * norm


@pytest.mark.parametrize("bad_value", [np.nan, np.inf, 1e30])
def test_nan_stays_with_its_group_and_passes(bad_value):
    """What is too large to be squared in float32 is not too large for its norm."""
    rng = np.random.default_rng(3)
    method, state = follower(1), {}
    mask = np.stack([np.ones(60, bool), np.arange(60) < 30, np.arange(60) >= 30], axis=1)
    for bad in (False, True, False):
        a = matrix("fast", rng)[:, None].astype("f")
        a[0, 0, 0] = bad_value if bad else a[0, 0, 0]
        sigma, norm, error = found_by(method, [a], mask, state)
        if np.isfinite(bad_value):
            assert np.isfinite(norm).all()
        else:
            assert np.isnan(sigma[:2]).all() == np.isnan(norm[:2]).all() == bad
            assert np.isnan(error[:2]).any() == bad
        assert np.isfinite(sigma[2]).all()
    np.testing.assert_allclose(sigma[0, 0], exact_values(a[:, 0]), rtol=0.2)


def test_a_group_that_was_absent_is_found():
    rng = np.random.default_rng(4)
    method, state = follower(1), {}
    a = matrix("fast", rng)
    for present in (False, True, True):
        mask = np.stack([np.ones(60, bool), np.full(60, present)], axis=1)
        sigma, norm, _ = found_by(method, [a[:, None]], mask, state)
        assert (norm[1] > 0) == present
    np.testing.assert_allclose(sigma[1], sigma[0], rtol=0.05)


def test_records_tell_how_much_is_missed():
    rng = np.random.default_rng(5)
    a, d = rng.standard_normal((32, 30, 900)), rng.standard_normal((32, 30, 3))
    factors = Factors(tf.constant(a, tf.float32), tf.constant(d, tf.float32))
    how = Spectra(quantities=("activation", "adjoint"), top_k=16, method="subspace")
    (found,) = solved([step_of(0, [factors])], how)
    assert not found.plan.is_exact
    records = by_name([found])
    sigma, norm, residual = records[0, 0, "activation", 0]
    assert len(sigma) == 16
    rest = np.sqrt(norm**2 - np.sum(sigma**2))
    assert 0.9 * rest < residual < rest  # of 24 columns, of which 16 are kept
    assert records[0, 0, "adjoint", 0][2] == 0.0


def test_a_basis_has_more_columns_than_are_wanted():
    factors = Factors(tf.zeros([32, 30, 900]), tf.zeros([32, 30, 3]))
    how = Spectra(quantities="activation", top_k=16, method="subspace")
    (found,) = solved([step_of(0, [factors])], how)
    assert [method.columns for method in found.plan.methods] == [16 + OVERSAMPLING]
