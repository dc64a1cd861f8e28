"""Patches of convolutions, never formed as a whole, against those looked up one by one."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

import keras_spectral.compiled
from keras_spectral.compiled import lagged
from keras_spectral.compiled.lagged import LANES, _lattice_products, _Points, lagged_gram
from keras_spectral.matrices import base, patches
from keras_spectral.matrices.base import Rows
from keras_spectral.matrices.patches import Patches, Windows
from tests.oracles.patches import patches as looked_up
from tests.oracles.patches import product_of_blocks

PRECISE = 1e-12
"""Of the trace of the Gram matrix, or of the product of both norms: float64."""

SINGLE = 1e-6
"""Of the product of both norms, for a filter gradient in float32."""

CASES = {
    # kernel, strides, dilation, padding, blocks
    "valid": ((3, 2), (1, 1), (1, 1), "valid", 1),
    "same": ((3, 2), (1, 1), (1, 1), "same", 1),
    "strides": ((3, 2), (2, 3), (1, 1), "same", 1),
    "dilation": ((2, 3), (1, 1), (3, 2), "same", 1),
    "grouped": ((3, 2), (1, 1), (1, 1), "same", 2),
    "depthwise": ((3, 2), (2, 1), (1, 1), "valid", 4),
    "a single place": ((1, 1), (1, 1), (1, 1), "valid", 1),
    "causal": ((3,), (1,), (2,), "causal", 1),
    "causal with strides": ((3,), (2,), (1,), "causal", 1),
    "volumes": ((2, 1, 3), (1, 1, 1), (1, 1, 1), "same", 1),
    "volumes with strides": ((2, 2, 2), (2, 2, 2), (1, 1, 1), "valid", 1),
}
SPATIAL = {1: [(9,), (7,)], 2: [(6, 7), (6, 5)], 3: [(4, 3, 5), (3, 3, 4)]}


@pytest.fixture(params=CASES)
def case(request):
    """Patches of two calls, what they stand for `[n, s, i]`, and an adjoint in float64."""
    kernel, strides, dilation, padding, blocks = CASES[request.param]
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal((6, *d, 4)).astype("f") for d in SPATIAL[len(kernel)]]
    wanted = [looked_up(x, kernel, strides, dilation, padding, blocks) for x in inputs]
    wanted = np.concatenate(wanted, axis=1)
    tensors = tuple(map(tf.constant, inputs))
    found = Patches(tensors, kernel, strides, dilation, padding, blocks)
    return found, wanted, rng.standard_normal((*wanted.shape[:2], 4))


def close(found, wanted, scale, roundings=PRECISE):
    np.testing.assert_allclose(np.asarray(found), wanted, rtol=0, atol=roundings * scale)


def assert_gram(found, rows):
    flat = rows.reshape(-1, rows.shape[-1])
    close(found, flat.T @ flat, np.sum(flat**2))


def of(x, examples):
    return x if examples is None else x[examples]


def test_rows_equal_those_looked_up(case, examples, device):
    found, wanted, _ = case
    assert (found.n, found.positions, found.width) == wanted.shape
    rows = np.asarray(found.rows(examples))
    assert rows.dtype == float
    np.testing.assert_array_equal(rows, of(wanted, examples).reshape(-1, wanted.shape[-1]))


def test_gram_equals_that_of_the_rows(case, examples, device):
    found, wanted, _ = case
    assert_gram(found.gram(examples), of(wanted, examples))


def test_product_is_the_gradient_of_each_block(case, examples, device):
    found, wanted, delta = case
    a, d = of(wanted, examples), of(delta, examples)
    product = product_of_blocks(a, d, found.n_blocks)
    scale = np.linalg.norm(a) * np.linalg.norm(d)
    own = found.product(Rows(tf.constant(delta)), examples)
    assert own.shape == product.shape == found.gradient_shape(delta.shape[-1])
    close(own, product, scale)
    single = found.product(Rows(tf.constant(delta, tf.float32)), examples)
    assert np.asarray(single).dtype == float
    close(single, product, scale, SINGLE)


@pytest.mark.parametrize("case", [name for name in CASES if CASES[name][-1] == 1], indirect=True)
def test_products_with_columns_are_convolutions(case, device):
    found, wanted, delta = case
    columns = np.random.default_rng(1).standard_normal((found.width, 3))
    for dtype, roundings in (("f8", PRECISE), ("f4", SINGLE)):
        product, back = found.matmul(columns.astype(dtype)), found.rmatmul(delta.astype(dtype))
        assert isinstance(product, np.ndarray)
        assert isinstance(back, np.ndarray)
        assert product.dtype == back.dtype == dtype
        size = np.linalg.norm(wanted)
        close(product, wanted @ columns, size * np.linalg.norm(columns), roundings)
        gradient = np.einsum("nsi,nsc->ic", wanted, delta)
        close(back, gradient, size * np.linalg.norm(delta), roundings)


def test_energies_sum_the_squares_of_each_example(case, device):
    found, wanted, _ = case
    np.testing.assert_allclose(found.energies(), np.sum(wanted**2, axis=(1, 2)), rtol=PRECISE)


def test_finite_puts_zeros_in_the_place_of_nan_and_inf(case, device):
    whole, _, _ = case
    how = whole.kernel, whole.strides, whole.dilation, whole.padding, whole.n_blocks
    broken, mended = ([x.numpy() for x in whole.inputs] for _ in range(2))
    broken[0][2, 1], broken[1][..., 0] = np.nan, -np.inf
    mended[0][2, 1], mended[1][..., 0] = 0, 0
    found = Patches(tuple(map(tf.constant, broken)), *how).finite()
    wanted = Patches(tuple(map(tf.constant, mended)), *how)
    np.testing.assert_array_equal(np.asarray(found.rows()), np.asarray(wanted.rows()))


def test_calls_are_joined_in_their_order(case):
    both, *_ = case
    how = both.kernel, both.strides, both.dilation, both.padding, both.n_blocks
    first, second = (Patches((x,), *how) for x in both.inputs)
    np.testing.assert_array_equal(first.joined([second]).rows(), both.rows())
    assert first.positions + second.positions == both.positions


@settings(max_examples=40, deadline=None)
@given(data=st.data(), axes=st.integers(1, 3), calls=st.integers(1, 2), seed=st.integers(0, 99))
def test_patches_equal_those_looked_up_in_chunks_of_any_size(data, axes, calls, seed):
    draw = [data.draw(st.integers(1, most)) for _ in range(axes) for most in (4 - axes // 2, 2, 3)]
    kernel, strides, dilation = (tuple(draw[k::3]) for k in range(3))
    if max(strides) > 1:  # Keras has no strides with dilation
        dilation = (1,) * axes
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
    paddings = ["valid", "same"] + ["causal"] * (axes == 1)
    padding, blocks = data.draw(st.sampled_from(paddings)), data.draw(st.integers(1, 2))
    rng = np.random.default_rng(seed)
    inputs = []
    for _ in range(calls):
        # Many places along the first axis, which stretches are cut of, few along others.
        first = reach[0] + data.draw(st.integers(0, 20 // axes**2))
        spatial = [first, *(data.draw(st.integers(least, least + 2)) for least in reach[1:])]
        inputs.append(rng.standard_normal((4, *spatial, 2 * blocks)).astype("f"))
    wanted = [looked_up(x, kernel, strides, dilation, padding, blocks) for x in inputs]
    wanted = np.concatenate(wanted, axis=1)
    found = Patches(tuple(map(tf.constant, inputs)), kernel, strides, dilation, padding, blocks)
    delta = rng.standard_normal((4, wanted.shape[1], 2 * blocks))
    mask = rng.random((4, 3)) < 0.5
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "CHUNK_NUMBERS", data.draw(st.sampled_from([1, 100, 10**6])))
        patch.setattr(patches, "FORMED_NUMBERS", data.draw(st.sampled_from([1, 100, 10**6])))
        patch.setattr(patches, "PADDED_NUMBERS", data.draw(st.sampled_from([1, 100, 10**6])))
        for examples in (None, *(np.flatnonzero(own) for own in mask.T if own.any())):
            a, d = of(wanted, examples), of(delta, examples)
            np.testing.assert_array_equal(found.rows(examples), a.reshape(-1, wanted.shape[-1]))
            assert_gram(found.gram(examples), a)
            for cost in (0.0, np.inf):
                patch.setattr(lagged, "LAGGED", cost)
                assert_gram(found.gram(examples), a)
            patch.setattr(lagged, "LAGGED", 0.0)
            with pytest.MonkeyPatch.context() as without:
                without.setattr(keras_spectral.compiled, "LIBRARY", Path("nowhere.so"))
                assert_gram(found.gram(examples), a)
            product = found.product(Rows(tf.constant(delta)), examples)
            size = np.linalg.norm(a) * np.linalg.norm(d)
            close(product, product_of_blocks(a, d, blocks), size)


@pytest.mark.parametrize("compiled", [True, False])
def test_lagged_products_are_taken_only_where_there_is_a_library(compiled, monkeypatch):
    monkeypatch.setattr(lagged, "LAGGED", 0.0)
    if not compiled:
        monkeypatch.setattr(keras_spectral.compiled, "LIBRARY", Path("nowhere.so"))
    taken = []

    def noted(x, windows):
        taken.append(x.shape)
        return lagged_gram(x, windows)

    monkeypatch.setattr(patches, "lagged_gram", noted)
    x = np.random.default_rng(0).standard_normal((2, 9, 3)).astype("f")
    found = Patches((tf.constant(x),), (3,), (1,), (1,), "same", 1).gram()
    assert_gram(found, looked_up(x, (3,), (1,), (1,), "same"))
    assert bool(taken) == compiled


@pytest.mark.parametrize("dilation", [1, 3])
def test_large_ends_leave_the_digits_of_a_small_interior(dilation):
    """What is subtracted again would be lost: the ends weigh 1e20 times the interior."""
    x = np.random.default_rng(0).standard_normal((2, 40, 3))
    x[:, :dilation] *= 1e10
    x[:, -dilation:] *= 1e10
    wanted = looked_up(x, (5,), (1,), (dilation,), "valid").reshape(-1, 15)
    gram = lagged_gram(x, Windows((40,), (5,), (1,), (dilation,), "valid"))
    np.testing.assert_allclose(np.diag(gram), np.sum(wanted**2, axis=0), rtol=1e-13)
    assert np.diag(gram)[3:12].max() < 1e-16 * np.trace(gram)  # seen by neither end


def test_gram_of_fewer_rows_than_features_has_no_more_eigenvalues_than_rows():
    x = np.random.default_rng(0).standard_normal((1, 16, 5)).astype("f")
    gram = lagged_gram(x, Windows((16,), (9,), (1,), (1,), "valid"))
    values = np.linalg.eigvalsh(gram)
    assert len(values) == 45
    np.testing.assert_allclose(values[:-8], 0, atol=1e-14 * values.max())


def test_gram_of_float32_inputs_has_the_digits_of_float64():
    """In float32 nothing of the small channel would be left beside the large one."""
    x = np.random.default_rng(0).standard_normal((2, 30, 2)).astype("f") * np.array([1e6, 1], "f")
    wanted = looked_up(x, (3,), (1,), (1,), "valid").reshape(-1, 6)
    tensor = tf.constant(x)
    for cost in (0.0, np.inf):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(lagged, "LAGGED", cost)
            gram = Patches((tensor,), (3,), (1,), (1,), "valid", 1).gram()
        scale = np.linalg.norm(wanted, axis=0)
        np.testing.assert_allclose(
            gram / np.outer(scale, scale), (wanted / scale).T @ (wanted / scale), atol=PRECISE
        )


@pytest.mark.parametrize("cost", [0.0, np.inf])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_patches_in_half_precision_are_exact_in_float64(dtype, cost, monkeypatch, device):
    monkeypatch.setattr(lagged, "LAGGED", cost)
    rng = np.random.default_rng(0)
    x, delta = (tf.cast(rng.standard_normal((2, 9, w)), dtype) for w in (3, 4))
    wide, d = (tf.cast(part, tf.float64).numpy() for part in (x, delta))
    found, wanted = (
        Patches((x,), (3,), (1,), (1,), "same", 1),
        looked_up(wide, (3,), (1,), (1,), "same"),
    )
    np.testing.assert_array_equal(found.rows(), wanted.reshape(-1, 9))
    assert_gram(found.gram(), wanted)
    np.testing.assert_allclose(found.energies(), np.sum(wanted**2, axis=(1, 2)), rtol=PRECISE)
    np.testing.assert_array_equal(found.finite().rows(), found.rows())
    product, scale = np.einsum("nsi,nso->io", wanted, d), np.linalg.norm(wanted) * np.linalg.norm(d)
    close(found.product(Rows(delta)), product, scale, SINGLE)


def test_patches_that_a_graph_made_of_sizes_it_does_not_know():
    x = np.random.default_rng(0).standard_normal((3, 6, 5, 2)).astype("f")

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 2])])
    def made(x):
        return Patches((x,), (3, 2), (2, 1), (1, 1), "same", 1)

    found, wanted = made(tf.constant(x)), looked_up(x, (3, 2), (2, 1), (1, 1), "same")
    np.testing.assert_array_equal(found.rows(), wanted.reshape(-1, 12))
    assert found.positions == wanted.shape[1]
    assert_gram(found.gram(), wanted)


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("strides", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 2, 5])
def test_windows_lie_where_tensorflow_has_them(kernel, strides, padding):
    windows = Windows((11,), (kernel,), (strides,), (1,), padding)
    x, filters = (np.random.default_rng(0).standard_normal(s) for s in ((2, 11, 3), (kernel, 3, 4)))
    wanted = tf.nn.conv1d(tf.constant(x), filters, strides, padding.upper())
    found = windows.convolved(tf.constant(x), tf.constant(filters))
    assert windows.sizes == [wanted.shape[1]]
    np.testing.assert_allclose(found, wanted, atol=PRECISE)


def test_times_seen_count_the_windows_of_each_place():
    seen = Windows((5, 4), (3, 2), (1, 2), (1, 1), "same").times_seen()
    assert [times.tolist() for times in seen] == [[2, 3, 3, 3, 2], [1, 1, 1, 1]]
    (seen,) = Windows((6,), (2,), (1,), (3,), "causal").times_seen()
    assert seen.tolist() == [2, 2, 2, 1, 1, 1]


PEAK = """
import resource
import tensorflow as tf
from keras_spectral.matrices.patches import Patches

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

def gram(x, strides):
    return Patches((x,), (3, 3, 3), (strides,) * 3, (1, 1, 1), "valid", 1).gram()

for strides in (1, 2):
    gram(tf.ones([4, 6, 6, 6, 8]), strides)
x = tf.ones([4, 40, 40, 40, 8])
before = peak()
for strides in (1, 2):
    gram(x, strides)
print(peak() - before)
"""

ALL_PATCHES = 4 * 38**3 * 27 * 8 * 8
BOUND = 80e6


def test_patches_are_never_held_all_at_once():
    command = [sys.executable, "-c", PEAK]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(found.stdout) < BOUND < ALL_PATCHES / 4


def lattices(begins, sizes, steps, rows, columns, length=100):
    points = _Points(np.arange(1.0, length + 1), np.array(begins), np.array(steps))
    return points, np.array(sizes), np.array(rows), np.array(columns)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_lattices_sum_products_within_their_memory_and_refuse_others(data):
    integers = st.integers
    sizes = data.draw(st.lists(st.tuples(*[integers(0, 3)] * 4), min_size=1, max_size=3))
    begins = [data.draw(integers(-5, 90)) for _ in sizes]
    steps = data.draw(st.tuples(*[integers(-6, 9)] * 4))
    rows = data.draw(st.lists(integers(-4, 12), min_size=1, max_size=8))
    columns = data.draw(st.lists(integers(-4, 12), min_size=1, max_size=8))
    points, *others = lattices(begins, sizes, steps, rows, columns)
    wanted, within = np.zeros((len(sizes), len(rows), len(columns), LANES)), True
    for number, (begin, size) in enumerate(zip(begins, sizes, strict=True)):
        for place in np.ndindex(*size):
            left = begin + np.dot(place, steps) + np.array(rows)
            right = begin + np.dot(place, steps) + np.add.outer(columns, np.arange(LANES))
            within &= min(left.min(), right.min()) >= 0
            within &= max(left.max(), right.max()) < len(points.memory)
            if within:
                wanted[number] += points.memory[left][:, None, None] * points.memory[right]
    if within:
        np.testing.assert_allclose(_lattice_products(points, *others), wanted, rtol=1e-14)
    else:
        with pytest.raises(IndexError, match="within the padded input"):
            _lattice_products(points, *others)


@pytest.mark.parametrize(
    "given",
    [
        lattices([-1], [[1, 1, 1, 1]], [1] * 4, [0], [1]),
        lattices([0], [[1, 1, 1, 1]], [1] * 4, [-1], [0]),
        lattices([0], [[1, 1, 1, 101]], [1] * 4, [0], [0]),
        lattices([0], [[1, 1, 1, 1]], [1] * 4, [0], [100 - LANES + 1]),
        lattices([0], [[1, 1, 1, -1]], [1] * 4, [0], [0]),
        lattices([10], [[1, 1, 2, 1]], [0, 0, -11, 0], [0], [0]),
        lattices([0, 200], [[1, 1, 1, 1]] * 2, [1] * 4, [0], [0]),
        lattices([0], [[1, 1, 1, 1]], [1] * 4, [], [0]),
    ],
    ids=[
        *("begins before", "reads before", "ends beyond", "lanes end beyond"),
        *("fewer than no points", "goes back too far", "the second lies beyond", "no rows"),
    ],
)
def test_lattices_outside_of_the_memory_are_refused(given):
    with pytest.raises(IndexError):
        _lattice_products(*given)
