"""Spectra against float64 NumPy, over forms, shapes, conditions, groups and methods."""

import contextlib

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_spectral.matrices.factors import Factors
from keras_spectral.matrices.gates import Gates
from keras_spectral.matrices.one_hot import OneHot
from keras_spectral.matrices.patches import Patches
from keras_spectral.settings import QUANTITIES, Spectra
from keras_spectral.spectra import feature_gram, row_gram
from keras_spectral.spectra.feature_gram import FeatureGram, FeatureGramByExample, GramOfEach
from keras_spectral.spectra.row_gram import RowGram
from keras_spectral.spectra.svd import Svd
from tests.oracles.mlp import singular_values
from tests.oracles.patches import patches, product_of_blocks
from tests.spectra.forcing import FORCED, by_name, forced, solved, step_of

TOLERANCE = 1e-6
"""Of sigma_1, for float32 data: float64 Gram matrices leave about 1e-8, so this has room."""

DIGITS = 1e-13
"""Of sigma_1, for float64 data: roundings of an SVD."""

NORM = 1e-9
"""Relative, of Frobenius norms: sums of squares in float64 of float32 data."""

NORM_OF_SINGLE = 1e-6
"""Relative, of filter gradients, which are made in the precision of training."""

METHODS = ("auto", "svd", *FORCED)

MASKS = {
    "no groups": None,
    "each in one": [[1, 0], [0, 1], [0, 1], [1, 0], [0, 1], [1, 0]],
    "some in none": [[1, 0], [0, 1], [0, 0], [1, 0], [0, 1], [0, 0]],
    "some in both": [[1, 1], [0, 1], [1, 1], [1, 0], [0, 1], [1, 0]],
    "as many memberships as examples": [[1, 1], [0, 1], [0, 0], [1, 0], [0, 1], [1, 0]],
    "all in one, none in the other": [[1, 0]] * 6,
    "one example": [[0, 1], [1, 0], [0, 0], [0, 0], [0, 0], [0, 0]],
    "more groups than examples": np.random.default_rng(0).random((6, 40)) < 0.3,
}
MASKS = {name: mask if mask is None else np.array(mask, bool) for name, mask in MASKS.items()}


def in_product(rng, s=5, i=4, o=3):
    a, d = (rng.standard_normal((6, s, w)).astype("f") for w in (i, o))
    return Factors(tf.constant(a), tf.constant(d)), a, d, np.einsum("nsi,nso->nio", *_wide(a, d))


def convolution(rng, blocks=1, o=4):
    calls = [rng.standard_normal((6, 5, length, 4)).astype("f") for length in (4, 3)]
    how = (3, 2), (1, 1), (1, 1), "same", blocks
    a = np.concatenate([patches(x, *how) for x in calls], axis=1)
    d = rng.standard_normal((*a.shape[:2], o)).astype("f")
    own = np.stack([product_of_blocks(*_wide(a[[n]], d[[n]]), blocks) for n in range(6)])
    return Factors(Patches(tuple(map(tf.constant, calls)), *how), tf.constant(d)), a, d, own


def transposed_convolution(rng):
    factors, a, d, own = convolution(rng)
    return Factors(factors.adjoint, factors.activation), d, a, own.swapaxes(1, 2)


def embedding(rng, vocabulary=30, o=12):
    """More tokens than columns, of which a group may see fewer than columns."""
    ids = rng.integers(0, vocabulary, (6, 3))
    a, d = np.eye(vocabulary)[ids], rng.standard_normal((6, 3, o)).astype("f")
    one_hot = OneHot(tf.constant(ids, tf.int32), vocabulary)
    return Factors(one_hot, tf.constant(d)), a, d, np.einsum("nsi,nso->nio", *_wide(a, d))


def gates(rng):
    a, d = (rng.standard_normal((6, 3, w)).astype("f") for w in (4, 5))
    parts = np.einsum("nsi,nso->nio", *_wide(a[..., :2], d[..., :3]))
    others = np.einsum("nsi,nso->nio", *_wide(a[..., 2:], d[..., 3:]))
    factors = Factors(Gates(tf.constant(a), (3, 2)), tf.constant(d))
    return factors, a, d, np.concatenate([parts, others], axis=-1)


def by_example(rng):
    a, d, own = (rng.standard_normal((6, *shape)).astype("f") for shape in ((3, 5), (2, 4), (2, 7)))
    return Factors(tf.constant(a), tf.constant(d), tf.constant(own)), a, d, own


def vector(rng):
    own = rng.standard_normal((6, 1, 7)).astype("f")
    return Factors(None, None, tf.constant(own)), None, None, own


def no_product(rng):
    """The gradients of groups come with the step: they are made of the mask where it is known."""
    return by_example(rng)


FORMS = {
    "product": in_product,
    "one row": lambda rng: in_product(rng, s=1, i=9, o=8),
    "wide": lambda rng: in_product(rng, s=2, i=30, o=20),
    "convolution": convolution,
    "grouped convolution": lambda rng: convolution(rng, blocks=2),
    "depthwise convolution": lambda rng: convolution(rng, blocks=4),
    "transposed convolution": transposed_convolution,
    "embedding": embedding,
    "small embedding": lambda rng: embedding(rng, vocabulary=4),
    "gates": gates,
    "by example": by_example,
    "no product": no_product,
    "vector": vector,
}


def _wide(*arrays):
    return tuple(x.astype(float) for x in arrays)


def members_of(mask, n):
    mask = np.zeros((n, 0), bool) if mask is None else mask
    return [np.ones(n, bool), *mask.T]


def choosing(method):
    return contextlib.nullcontext() if method in ("auto", "svd", "gram") else forced(method)


def spectra(steps, method):
    """Return spectra by name of steps, each as `step_of` takes it, by one of `METHODS`."""
    how = Spectra(method="svd" if method == "svd" else "gram" if method in FORCED else "auto")
    with choosing(method):
        return by_name(solved([step_of(r, *step) for r, step in enumerate(steps)], how))


def assert_spectra(found, matrix_of, members, tolerance=TOLERANCE, norm_tolerance=NORM):
    """Compare with the matrices `matrix_of(step, weight, quantity, own)` of all that was found."""
    present = {g for g, own in enumerate(members) if own.any()}
    assert {g for *_, g in found} == present
    for (step, weight, quantity, g), (sigma, norm, residual) in found.items():
        matrix = matrix_of(step, weight, quantity, members[g])
        wanted = singular_values(matrix, len(sigma))
        assert np.abs(sigma - wanted).max() <= tolerance * max(wanted[0], 1e-300), (quantity, g)
        assert norm == pytest.approx(np.linalg.norm(matrix), rel=norm_tolerance, abs=1e-300)
        assert residual == 0.0


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_has_the_spectra_of_the_matrix_it_stands_for(form, method, mask):
    assert_form(form, method, MASKS[mask])


@pytest.mark.parametrize("mask", ["each in one", "some in both", "more groups than examples"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_on_another_device_too(form, method, mask, elsewhere):
    assert_form(form, method, MASKS[mask])


def assert_form(form, method, mask):
    rng, steps, made = np.random.default_rng(0), [], []
    members = members_of(mask, 6)
    for _ in range(2):
        factors, *arrays = FORMS[form](rng)
        if form == "no product":
            groups = np.stack([arrays[2][own].sum(axis=0) for own in members])
            factors = factors._replace(example_gradients=None, group_gradients=tf.constant(groups))
        steps.append(([factors], mask))
        made.append(dict(zip(QUANTITIES, arrays, strict=True)))

    def matrix(step, weight, quantity, own):
        part = made[step][quantity][own].astype(float)
        return part.sum(axis=0) if quantity == "gradient" else part.reshape(-1, part.shape[-1])

    found = spectra(steps, method)
    n_quantities = 1 if form == "vector" else 3
    assert len(found) == 2 * n_quantities * sum(own.any() for own in members)
    single = NORM_OF_SINGLE if "convolution" in form or form == "no product" else NORM
    assert_spectra(found, matrix, members, norm_tolerance=single)


def assert_equal_to_numpy(a, d, mask, method="auto", tolerance=TOLERANCE):
    steps = [([Factors(tf.constant(k * a), tf.constant(d))], mask) for k in (1, 2)]

    def matrix(step, weight, quantity, own):
        x, y = ((1 + step) * a[own]).astype(float), d[own].astype(float)
        x, y = x.reshape(-1, x.shape[-1]), y.reshape(-1, y.shape[-1])
        return {"activation": x, "adjoint": y, "gradient": x.T @ y}[quantity]

    assert_spectra(spectra(steps, method), matrix, members_of(mask, len(a)), tolerance)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("method", METHODS)
def test_half_precision_is_no_reason_for_other_spectra(method, dtype, device):
    rng = np.random.default_rng(0)
    a, d = (tf.cast(rng.standard_normal((6, 3, w)), dtype) for w in (5, 4))
    wide = [tf.cast(x, tf.float64).numpy() for x in (a, d)]
    mask = MASKS["some in both"]

    def matrix(step, weight, quantity, own):
        x, y = (part[own].reshape(-1, part.shape[-1]) for part in wide)
        return {"activation": x, "adjoint": y, "gradient": x.T @ y}[quantity]

    assert_spectra(spectra([([Factors(a, d)], mask)], method), matrix, members_of(mask, 6))


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(*(st.integers(1, high) for high in (12, 4, 12, 12))),
    n_groups=st.sampled_from([0, 1, 2, 3, 4, 20]),
    seed=st.integers(0, 2**31),
    method=st.sampled_from(METHODS),
)
def test_spectra_equal_numpy_for_any_shape_groups_and_method(shape, n_groups, seed, method):
    n, s, i, o = shape
    rng = np.random.default_rng(seed)
    a, d = rng.standard_normal((n, s, i)).astype("f"), rng.standard_normal((n, s, o)).astype("f")
    mask = rng.random((n, n_groups)) < rng.random() if n_groups else None
    assert_equal_to_numpy(a, d, mask, method)


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
    assert_equal_to_numpy(a, d, mask)


@pytest.mark.parametrize("kind", ["rank deficient", "ill conditioned", "zero"])
@pytest.mark.parametrize("method", FORCED)
def test_every_method_is_exact_for_any_condition(kind, method):
    rng = np.random.default_rng(0)
    a, d = (conditioned(rng, 40, width, kind)[:, None] for width in (64, 24))
    assert_equal_to_numpy(a, d, np.arange(40)[:, None] % 2 == 0, method)


@pytest.mark.parametrize(("rows", "width"), [(2048, 16), (16, 2048), (2048, 1), (1, 2048)])
def test_two_thousand_rows_or_features_are_exact(rows, width):
    rng = np.random.default_rng(0)
    a = conditioned(rng, rows, width, "ill conditioned")[:, None]
    d = rng.standard_normal((rows, 1, 24)).astype("f")
    assert_equal_to_numpy(a, d, np.arange(rows)[:, None] % 3 == 0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["full rank", "rank deficient", "ill conditioned", "zero"])
def test_a_square_of_two_thousand_is_exact(kind):
    rng = np.random.default_rng(0)
    a = conditioned(rng, 2048, 2048, kind)[:, None]
    d = conditioned(rng, 2048, 2048, kind)[:, None]
    assert_equal_to_numpy(a, d, None)


def test_float64_data_keeps_its_digits(device):
    rng = np.random.default_rng(0)
    a, d = rng.standard_normal((9, 1, 5)), rng.standard_normal((9, 1, 4))
    a[:, 0, 4] = a[:, 0, 3]  # rank deficient: a Gram matrix would leave 1e-8
    assert_equal_to_numpy(a, d, np.ones((9, 1), bool), tolerance=DIGITS)


@pytest.mark.parametrize("groups", ["few", "more than examples"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_stays_in_its_group_its_layer_and_its_step(method, bad, groups):
    rng = np.random.default_rng(0)
    a, d = (rng.standard_normal((6, 1, w)).astype("f") for w in (4, 3))
    broken = a.copy()
    broken[0, 0, 0] = bad
    mask = np.array([[1, 0]] * 3 + [[0, 1]] * 3, bool)
    if groups == "more than examples":
        mask = np.tile(mask, 20)
    factors, bad_ones = (Factors(tf.constant(x), tf.constant(d)) for x in (a, broken))
    found = spectra([([bad_ones, factors], mask), ([factors, factors], mask)], method)
    assert len(found) == 2 * 2 * 3 * (1 + mask.shape[1])
    for (step, weight, quantity, g), (sigma, norm, _) in found.items():
        has_it = g == 0 or g % 2 == 1
        hit = step == 0 and weight == 0 and quantity != "adjoint" and has_it
        assert np.isnan(sigma).all() == hit
        assert np.isfinite(sigma).all() == (not hit)
        assert np.isnan(norm) == hit


@pytest.mark.parametrize("method", FORCED)
@pytest.mark.parametrize("form", ["convolution", "grouped convolution", "gates"])
def test_nan_stays_with_its_group_in_every_form(form, method):
    mask = np.array([[1, 0]] * 3 + [[0, 1]] * 3, bool)
    factors, *_ = FORMS[form](np.random.default_rng(0))
    broken = np.array(factors.adjoint)
    broken[0, 0, 0] = np.nan
    found = spectra([([factors._replace(adjoint=tf.constant(broken))], mask)], method)
    for (*_, quantity, g), (sigma, norm, _) in found.items():
        assert np.isnan(norm) == (quantity != "activation" and g < 2)
        assert np.isnan(sigma).any() == np.isnan(norm)


def test_the_methods_that_are_forced_are_those_that_solve():
    factors, *_ = in_product(np.random.default_rng(0))
    kinds = {
        "svd": {Svd},
        "row_gram, wide": {RowGram},
        "row_gram, thin": {RowGram},
        "feature_gram": {FeatureGram},
        "gram_of_each": {GramOfEach, FeatureGram},
    }
    for method, wanted in kinds.items():
        how = Spectra(method="svd" if method == "svd" else "gram")
        with choosing(method):
            (found,) = solved([step_of(0, [factors], MASKS["each in one"])], how)
            assert {type(own) for own in found.plan.methods} == wanted
    with forced("feature_gram"):
        (found,) = solved([step_of(0, [factors], MASKS["more groups than examples"])])
    assert {type(own) for own in found.plan.methods} == {FeatureGramByExample}


@pytest.mark.parametrize("chunk", [1, 10_000])
def test_groups_that_outnumber_examples_are_solved_in_parts(monkeypatch, chunk):
    monkeypatch.setattr(feature_gram, "CHUNK_BYTES", chunk)
    rng = np.random.default_rng(0)
    a, d = (rng.standard_normal((8, 5, w)).astype("f") for w in (9, 7))
    assert_equal_to_numpy(a, d, rng.random((8, 60)) < 0.3, "feature_gram")


@pytest.mark.parametrize("method", ["row_gram, wide", "row_gram, thin"])
def test_blocks_are_solved_in_parts_when_they_are_many(monkeypatch, method):
    monkeypatch.setattr(row_gram, "CHUNK_BYTES", 1)
    rng = np.random.default_rng(0)
    a, d = (rng.standard_normal((8, 1, w)).astype("f") for w in (9, 7))
    assert_equal_to_numpy(a, d, rng.random((8, 40)) < 0.5, method)


@pytest.mark.parametrize("top_k", [1, 3, 50])
def test_as_many_singular_values_are_kept_as_are_asked_for(top_k):
    factors, a, d, own = in_product(np.random.default_rng(0))
    (found,) = solved([step_of(0, [factors], MASKS["each in one"])], Spectra(top_k=top_k))
    for name, (sigma, norm, _) in by_name([found]).items():
        bound = {"activation": 4, "adjoint": 3, "gradient": 3}[name[2]]
        assert len(sigma) == min(top_k, bound)
        members = members_of(MASKS["each in one"], 6)[name[3]]
        matrix = (
            own[members].sum(axis=0)
            if name[2] == "gradient"
            else {"activation": a, "adjoint": d}[name[2]][members].reshape(-1, bound)
        )
        np.testing.assert_allclose(sigma, singular_values(matrix, len(sigma)), rtol=TOLERANCE)
        assert norm == pytest.approx(np.linalg.norm(matrix), rel=NORM_OF_SINGLE)
