"""Spectra against float64 NumPy, over shapes, conditions, groups, methods."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from keras_spectral.spectra.example_sums import ExampleSums
from keras_spectral.spectra.factor_grams import FactorGrams
from keras_spectral.spectra.factors import Factors
from keras_spectral.spectra.feature_grams import FeatureGrams
from keras_spectral.spectra.keeping import kept_by
from keras_spectral.spectra.patches import Patches
from keras_spectral.spectra.pile import Pile
from keras_spectral.spectra.row_grams import RowGrams
from keras_spectral.spectra.stacks import layout_for, stacks_for

from keras_spectral.spectra import example_sums, row_grams
from tests.oracles.mlp import singular_values

QUANTITIES = ("activation", "adjoint", "gradient")

TOLERANCE = 1e-6
"""Of sigma_1, for float32 data: float64 Gram matrices leave about 1e-8, so this has room."""


IN_THE_THREAD, IN_THE_GRAPH = (10_000,), (10_000_000,)
"""Expected sizes that speak for the side of the features."""

MANY_GROUPS = (40, *[20] * 60)
"""Expected sizes that speak for adding up what examples contribute."""


def oracle(a, d, quantity, k):
    a, d = (np.asarray(x, float).reshape(-1, x.shape[-1]) for x in (a, d))
    matrix = {"activation": a, "adjoint": d, "gradient": a.T @ d}[quantity]
    return singular_values(matrix, k), np.linalg.norm(matrix)


def spectra(steps, mask, method="auto", sizes=(32,), n=None):
    """Return `{(record, weight, quantity, group): (sigma, norm)}` of steps `[[(a, d), …], …]`."""
    pile, found = Pile(), []
    n = len(steps[0][0][0]) if n is None else n
    members = np.zeros((n, 0), bool) if mask is None else np.asarray(mask)
    for number, pairs in enumerate(steps):
        factors = [Factors(*map(_part, pair)) for pair in pairs]
        named = {("dense", str(j)): factor for j, factor in enumerate(factors)}
        layout = layout_for(named, QUANTITIES, None, method, sizes)
        positions = [factor.positions(q) for factor in factors for q in QUANTITIES[:2]]
        head = np.array([number, 0, *positions])
        kept = [tensor.numpy() for tensor in kept_by(layout.stacks, factors, mask, n)]
        found += pile.add([[head, members, *kept]], layout)
    found += pile.rest()
    return {key: value for part in found for key, value in _by_name(part)}


def _part(part):
    return part if isinstance(part, Patches) else tf.constant(part)


def _by_name(part):
    for r, step in enumerate(part.heads[:, 0]):
        for p, (j, quantity) in enumerate(part.layout.series):
            for group in np.flatnonzero(part.sizes[r]):
                sigma = part.sigma[r, p, group]
                key = int(step), j, quantity, int(group)
                yield key, (sigma[: _rank_bound(part, r, p, group)], part.norm[r, p, group])


def _rank_bound(part, r, p, group):
    return part.layout.n_kept(part.layout.n_rows(part.heads, part.sizes))[0][r, p, group]


def assert_equal_to_oracle(a, d, mask, method="auto", sizes=(32,), tolerance=TOLERANCE):
    assert_spectra(spectra([[(a, d)], [(2 * a, d)]], mask, method, sizes), a, d, mask, tolerance)


def assert_spectra(found, a, d, mask, tolerance=TOLERANCE):
    members = [np.arange(len(a))] + ([] if mask is None else [np.flatnonzero(m) for m in mask.T])
    present = [group for group, rows in enumerate(members) if len(rows)]
    assert {key[3] for key in found} == set(present)
    assert len(found) == 2 * len(QUANTITIES) * len(present)
    for (record, _, quantity, group), (values, norm) in found.items():
        rows = members[group]
        wanted, wanted_norm = oracle((1 + record) * a[rows], d[rows], quantity, len(values))
        scale = max(wanted[0], 1e-300)
        assert np.abs(values - wanted).max() <= tolerance * scale, (quantity, rows)
        assert norm == pytest.approx(wanted_norm, rel=1e-9, abs=1e-300)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(
    ("sizes", "kind"),
    [(IN_THE_THREAD, FactorGrams), (IN_THE_GRAPH, FeatureGrams), (MANY_GROUPS, ExampleSums)],
)
def test_patches_have_the_spectra_of_the_matrix_they_stand_for(sizes, kind, transposed):
    rng = np.random.default_rng(0)
    calls = [rng.standard_normal((8, 7, length, 4)).astype("f") for length in (6, 5)]
    patches, doubled = (
        Patches(tuple(tf.constant(k * x) for x in calls), (3, 2), (1, 1), (1, 1), "same", 1)
        for k in (1, 2)
    )
    rows = patches.rows().numpy()
    other = rng.standard_normal((*rows.shape[:2], 6)).astype("f")
    mask = rng.random((8, 60)) < 0.3 if sizes is MANY_GROUPS else np.eye(8, dtype=bool)[:, :3]
    steps = [[(patches, other)], [(doubled, other)]]
    if transposed:
        steps = [[(other, patches)], [(2 * other, patches)]]
    factors = [Factors(*map(_part, steps[0][0]))]
    assert {type(stack) for stack in stacks_for(factors, QUANTITIES, "gram", sizes)} == {kind}
    pair = (other, rows) if transposed else (rows, other)
    assert_spectra(spectra(steps, mask, "gram", sizes, n=8), *pair, mask)


shapes = st.tuples(*(st.integers(1, high) for high in (12, 4, 12, 12)))


@settings(max_examples=40, deadline=None)
@given(
    shape=shapes,
    n_groups=st.integers(0, 4),
    seed=st.integers(0, 2**31),
    method=st.sampled_from(["gram", "svd"]),
    sizes=st.one_of(
        st.tuples(st.integers(1, 200)), st.sampled_from([IN_THE_THREAD, IN_THE_GRAPH, MANY_GROUPS])
    ),
)
def test_spectra_equal_numpy_for_any_shape_groups_and_side(shape, n_groups, seed, method, sizes):
    n, s, i, o = shape
    rng = np.random.default_rng(seed)
    a, d = rng.standard_normal((n, s, i)).astype("f"), rng.standard_normal((n, s, o)).astype("f")
    mask = rng.random((n, n_groups)) < rng.random() if n_groups else None
    assert_equal_to_oracle(a, d, mask, method, sizes)


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
@pytest.mark.parametrize("sizes", [(1,), IN_THE_THREAD, IN_THE_GRAPH, MANY_GROUPS])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_stays_in_its_group_its_layer_and_its_step(method, sizes, bad):
    rng = np.random.default_rng(0)
    a, d = (rng.standard_normal((6, 1, w)).astype("f") for w in (4, 3))
    broken = a.copy()
    broken[0, 0, 0] = bad
    mask = np.array([[1, 0]] * 3 + [[0, 1]] * 3, bool)
    found = spectra([[(broken, d), (a, d)], [(a, d), (a, d)]], mask, method, sizes)
    for (record, weight, quantity, group), (sigma, norm) in found.items():
        hit = record == 0 and weight == 0 and quantity != "adjoint" and group < 2
        assert np.isnan(sigma[0]) == hit
        assert np.isfinite(sigma).all() == (not hit)
        assert np.isnan(norm) == hit


def test_the_side_is_chosen_by_size(monkeypatch):
    def chosen(n, i, o):
        factors = [Factors(tf.zeros([n, 1, i]), tf.zeros([n, 1, o]))]
        return [(type(stack), stack.wanted) for stack in stacks_for(factors, QUANTITIES)]

    everything = tuple((0, quantity) for quantity in QUANTITIES)
    assert chosen(6, 400, 300) == [(RowGrams, everything)]
    small = [Factors(tf.zeros([6, 1, 4]), tf.zeros([6, 1, 3]))]
    for sizes, kind in ((IN_THE_THREAD, FactorGrams), (IN_THE_GRAPH, FeatureGrams)):
        assert {type(stack) for stack in stacks_for(small, QUANTITIES, "gram", sizes)} == {kind}
    with monkeypatch.context() as patch:
        patch.setattr(tf.config, "list_physical_devices", lambda _: ["a GPU"])
        found = stacks_for(small, QUANTITIES, "gram", IN_THE_THREAD)
    assert {type(stack) for stack in found} == {FeatureGrams}
    found = stacks_for(
        [Factors(tf.zeros([6, 8, 4]), tf.zeros([6, 8, 3]))], QUANTITIES, "gram", MANY_GROUPS
    )
    assert {type(stack) for stack in found} == {ExampleSums}


@pytest.mark.parametrize("chunk", [1, 10_000])
def test_groups_that_outnumber_examples_are_solved_in_parts(monkeypatch, chunk):
    monkeypatch.setattr(example_sums, "CHUNK_BYTES", chunk)
    rng = np.random.default_rng(0)
    a, d = (rng.standard_normal((8, 5, w)).astype("f") for w in (9, 7))
    assert_equal_to_oracle(a, d, rng.random((8, 60)) < 0.3, sizes=MANY_GROUPS)


def test_blocks_are_solved_in_parts_when_they_are_many(monkeypatch):
    monkeypatch.setattr(row_grams, "CHUNK_BYTES", 1)
    rng = np.random.default_rng(0)
    a, d = (rng.standard_normal((8, 1, w)).astype("f") for w in (9, 7))
    assert_equal_to_oracle(a, d, rng.random((8, 40)) < 0.5)
