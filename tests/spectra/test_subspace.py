"""The largest singular values from a subspace: near, and never further away than is said."""

import numpy as np
import pytest
import tensorflow as tf
from keras_spectral.spectra.bases import Bases, kept_of_subspaces
from keras_spectral.spectra.costs import prefers_subspace
from keras_spectral.spectra.factors import Factors
from keras_spectral.spectra.keeping import kept_by
from keras_spectral.spectra.patches import Patches
from keras_spectral.spectra.pile import Pile
from keras_spectral.spectra.rows import group_rows
from keras_spectral.spectra.stacks import layout_for, stacks_for

from keras_spectral.spectra.subspace import Subspaces, sigma_errors

K, COLUMNS = 6, 10


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


def found_by(activations, mask, bases, stack):
    """Return `(sigma, norm, error)` `[g, p, …]` of activations of one step."""
    factors = [Factors(tf.constant(a), None) for a in activations]
    rows = group_rows(tf.constant(mask[:, 1:]))
    kept = kept_of_subspaces(stack, factors, tf.constant(mask), rows, bases)
    groups = np.arange(mask.shape[1])
    sigma, norm, missed = stack.spectra_of(kept.numpy()[None], np.zeros_like(groups), groups)
    errors = sigma_errors(sigma.reshape(-1, COLUMNS), missed.reshape(-1)).reshape(sigma.shape)
    return sigma[..., :K], norm, errors[..., :K]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_error_exceeds_its_bound(dtype):
    rng = np.random.default_rng(0)
    stack = Subspaces(tuple((j, "activation") for j in range(50)), COLUMNS)
    checked = 0
    for _ in range(5 if dtype == "float64" else 10):
        bases = Bases()
        mask = np.stack([np.ones(60, bool), rng.random(60) < 0.5, rng.random(60) < 0.1], axis=1)
        for _ in range(2):  # the second step begins with the bases of the first, here strangers
            kinds = [KINDS[j % len(KINDS)] for j in range(50)]
            made = [matrix(kind, rng)[:, None].astype(dtype) for kind in kinds]
            sigma, norm, error = found_by(made, mask, bases, stack)
            for g, own in enumerate(mask.T):
                for p, a in enumerate(made):
                    wide = a[own, 0].astype(float)
                    exact = np.linalg.svd(wide, compute_uv=False)[:K]
                    exact = np.pad(exact, (0, K - len(exact)))
                    assert (np.abs(exact - sigma[g, p]) <= error[g, p]).all(), (kinds[p], g)
                    assert norm[g, p] == pytest.approx(np.linalg.norm(wide), rel=1e-9)
                    checked += 1
    assert checked >= 1000


def test_bases_follow_what_changes_little():
    rng = np.random.default_rng(1)
    stack = Subspaces(((0, "activation"),), COLUMNS)
    mask = np.stack([np.ones(60, bool), np.arange(60) < 30], axis=1)
    a, change, bases = matrix("slow", rng), matrix("slow", rng), Bases()
    worst = []
    for _ in range(12):
        a = a + 1e-3 * np.linalg.norm(a, 2) / np.linalg.norm(change, 2) * change
        sigma, _, _ = found_by([a[:, None]], mask, bases, stack)
        exact = [np.linalg.svd(a[own], compute_uv=False)[:K] for own in mask.T]
        worst.append(np.abs(sigma[:, 0] / np.array(exact) - 1).max())
    assert worst[-1] < 1e-3
    assert worst[-1] < worst[0]


@pytest.mark.parametrize("form", ["rows", "patches", "patches of two calls", "dilated patches"])
def test_forms_of_a_matrix_agree_with_numpy(form):
    rng = np.random.default_rng(2)
    n, classes = 5, 4
    images = rng.standard_normal((n, 7, 6, 3))
    kernel, dilation = (2, 3), (2, 1) if form == "dilated patches" else (1, 1)
    patches = Patches((tf.constant(images),), kernel, (1, 1), dilation, "same", 1)
    if form == "patches of two calls":
        other = Patches((tf.constant(images[:, ::-1].copy()),), kernel, (1, 1), dilation, "same", 1)
        patches = patches.joined([other])
    unfolded = patches.rows().numpy()
    activation = tf.constant(unfolded) if form == "rows" else patches
    delta = rng.standard_normal((*unfolded.shape[:2], classes))
    factors = [Factors(activation, tf.constant(delta))]
    mask = np.array([[1, 1, 0], [1, 0, 1], [1, 0, 0], [1, 1, 1], [1, 0, 1]], bool)
    stack = Subspaces(((0, "activation"), (0, "gradient")), unfolded.shape[-1])  # misses nothing
    rows = group_rows(tf.constant(mask[:, 1:]))
    kept = tf.function(lambda: kept_of_subspaces(stack, factors, tf.constant(mask), rows, bases))
    bases = Bases()
    sigma, norm, missed = stack.spectra_of(kept().numpy()[None], np.zeros(3, int), np.arange(3))
    for g, own in enumerate(mask.T):
        a = unfolded[own].reshape(-1, unfolded.shape[-1])
        for p, exact in enumerate([a, a.T @ delta[own].reshape(-1, classes)]):
            values = np.linalg.svd(exact, compute_uv=False)
            found = sigma[g, p, : len(values)]
            np.testing.assert_allclose(found, values, atol=1e-6 * values[0])
            assert norm[g, p] == pytest.approx(np.linalg.norm(exact), rel=1e-9)
            assert missed[g, p] < 1e-6 * norm[g, p]


def test_nan_stays_with_its_group_and_passes():
    rng = np.random.default_rng(3)
    stack, bases = Subspaces(((0, "activation"),), COLUMNS), Bases()
    mask = np.stack([np.ones(60, bool), np.arange(60) < 30, np.arange(60) >= 30], axis=1)
    for bad in (False, True, False):
        a = matrix("fast", rng)[:, None]
        a[0, 0, 0] = np.nan if bad else a[0, 0, 0]
        sigma, norm, error = found_by([a], mask, bases, stack)
        assert np.isnan(sigma[:2]).all() == np.isnan(norm[:2]).all() == bad
        assert np.isfinite(sigma[2]).all()
        assert np.isnan(error[:2]).any() == bad
    exact = np.linalg.svd(a[:, 0], compute_uv=False)[:K]
    np.testing.assert_allclose(sigma[0, 0], exact, rtol=0.2)


def test_a_group_that_was_absent_is_found():
    rng = np.random.default_rng(4)
    stack, bases = Subspaces(((0, "activation"),), COLUMNS), Bases()
    a = matrix("fast", rng)
    for present in (False, True, True):
        mask = np.stack([np.ones(60, bool), np.full(60, present)], axis=1)
        sigma, norm, _ = found_by([a[:, None]], mask, bases, stack)
        assert (norm[1] > 0) == present
    np.testing.assert_allclose(sigma[1], sigma[0], rtol=0.05)


def factors_of(n, s, i, o):
    return Factors(tf.zeros([n, s, i]), tf.zeros([n, s, o]))


def test_a_subspace_is_followed_only_where_it_is_cheaper():
    sizes = (32, 16, 16)
    quantities = ("activation", "adjoint", "gradient")
    wide = [factors_of(32, 30, 900, 600)]
    found = stacks_for(wide, quantities, "subspace", sizes, 16)
    assert [(type(stack), stack.columns) for stack in found] == [(Subspaces, 24)]
    assert found[0].wanted == tuple((0, q) for q in quantities)
    for others in ([factors_of(32, 1, 900, 600)], [factors_of(32, 30, 40, 20)]):
        assert Subspaces not in map(type, stacks_for(others, quantities, "subspace", sizes, 16))


def test_products_with_all_bases_at_once_stay_small():
    for s, groups, follows in ((30, 99, True), (3000, 2, True), (3000, 99, False)):
        assert prefers_subspace((32, *[16] * groups), s, 900, 24, 4.0) == follows


def test_records_tell_how_much_is_missed():
    rng = np.random.default_rng(5)
    a, d = rng.standard_normal((32, 30, 900)), rng.standard_normal((32, 30, 3))
    factors = {("dense", "kernel"): Factors(tf.constant(a, "float32"), tf.constant(d, "float32"))}
    layout = layout_for(factors, ("activation", "adjoint"), 16, "subspace", (32,))
    assert not layout.is_exact
    kept = kept_by(layout.stacks, list(factors.values()), None, 32, Bases())
    head = np.array([0, 0, 30, 30])
    pile = Pile()
    pile.add([[head, np.zeros((32, 0), bool), *(part.numpy() for part in kept)]], layout)
    (found,) = pile.rest()
    rest = np.sqrt(found.norm**2 - np.nansum(found.sigma**2, axis=-1))[0, :, 0]
    assert found.residual[0, 1, 0] == 0.0
    assert 0.9 * rest[0] < found.residual[0, 0, 0] < rest[0]
