"""The verbs of a matrix, and rows that are there, against NumPy."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_spectral.matrices import base
from keras_spectral.matrices.base import Matrix, Rows, array, taken

ROUNDINGS = 1e-13
"""Of what is summed in absolute values: float64, some hundred terms."""

ROUNDINGS_32 = 1e-5
"""The same in float32."""


class Formed(Matrix):
    """A form of which only the rows are said: everything else is what follows from them."""

    def __init__(self, tensor):
        self.all = tensor
        self.n, self.positions, self.width = tensor.shape

    def rows(self, examples=None):
        own = base.taken(base.array(self.all), examples)
        return base.float64(base.flat(own))


FORMS = [Formed, Rows]


def close(found, wanted, scale, roundings=ROUNDINGS):
    np.testing.assert_allclose(np.asarray(found), wanted, rtol=0, atol=roundings * scale)


def assert_all_verbs(form, a, d, examples):
    """Compare what a form of two arrays `[n, s, w]`, `[n, s, o]` gives with NumPy."""
    matrix, other = form(tf.constant(a)), form(tf.constant(d))
    own = slice(None) if examples is None else examples
    flat_a, flat_d = (x[own].reshape(-1, x.shape[-1]).astype(float) for x in (a, d))
    assert (matrix.n, matrix.positions, matrix.width) == a.shape
    rows = np.asarray(matrix.rows(examples))
    assert rows.dtype == float
    np.testing.assert_array_equal(rows, flat_a)
    close(matrix.gram(examples), flat_a.T @ flat_a, np.sum(flat_a**2))
    size = np.linalg.norm(flat_a) * np.linalg.norm(flat_d)
    close(matrix.product(other, examples), flat_a.T @ flat_d, size)
    close(matrix.energies(), np.square(a, dtype=float).sum(axis=(1, 2)), np.sum(a**2.0))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_rows_gram_product_and_energies_equal_numpy(form, dtype, examples, device):
    rng = np.random.default_rng(0)
    a, d = (rng.standard_normal((6, 3, w)).astype(dtype) for w in (5, 4))
    assert_all_verbs(form, a, d, examples)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), form=st.sampled_from(FORMS), shape=st.tuples(*[st.integers(1, 6)] * 4))
def test_whatever_is_formed_at_a_time(data, form, shape):
    n, s, i, o = shape
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    a, d = rng.standard_normal((n, s, i)).astype("f"), rng.standard_normal((n, s, o)).astype("f")
    own = data.draw(st.one_of(st.none(), st.sets(st.integers(0, n - 1), min_size=1)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "CHUNK_NUMBERS", data.draw(st.sampled_from([1, 20, 60, 10**6])))
        assert_all_verbs(form, a, d, own if own is None else np.array(sorted(own)))


@given(
    n=st.integers(1, 30), width=st.integers(1, 9), numbers=st.integers(1, 400), some=st.booleans()
)
def test_chunks_hold_each_example_once_and_few_numbers(n, width, numbers, some):
    matrix = Formed(np.zeros((n, 2, width)))
    examples = np.arange(n // 2, n) if some else None
    wanted = np.arange(n) if examples is None else examples
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(base, "CHUNK_NUMBERS", numbers)
        for given_width in (None, width + 7):
            each = 2 * (given_width or width)
            chunks = matrix.chunks(examples, given_width)
            if chunks[0] is None:
                assert len(chunks) == 1
                assert len(wanted) == n
                assert each * n <= numbers or n == 1
                continue
            np.testing.assert_array_equal(np.concatenate(chunks), wanted)
            assert all(len(chunk) * each <= numbers or len(chunk) == 1 for chunk in chunks)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("dtype", "roundings"), [("f4", ROUNDINGS_32), ("f8", ROUNDINGS)])
def test_products_with_columns_have_the_type_of_the_columns(form, dtype, roundings, device):
    rng = np.random.default_rng(0)
    a = rng.standard_normal((6, 3, 5)).astype("f")
    columns, rows = (rng.standard_normal(shape).astype(dtype) for shape in ((5, 2), (6, 3, 2)))
    matrix = form(tf.constant(a))
    found = matrix.matmul(columns)
    assert found.dtype == dtype
    close(found, a.astype(float) @ columns, np.linalg.norm(a) * np.linalg.norm(columns), roundings)
    found = matrix.rmatmul(rows)
    assert found.dtype == dtype
    wanted = np.einsum("nsi,nsc->ic", a.astype(float), rows)
    close(found, wanted, np.linalg.norm(a) * np.linalg.norm(rows), roundings)


def test_bfloat16_rows_are_exact_in_float64():
    x = tf.cast(tf.constant([[[1 / 3, 1e30]], [[-2.5, 0.0]]]), tf.bfloat16)
    np.testing.assert_array_equal(Rows(x).rows(), tf.cast(x, tf.float64).numpy().reshape(-1, 2))


def test_rows_take_arrays_as_they_take_tensors():
    x = np.arange(12.0).reshape(2, 3, 2)
    np.testing.assert_array_equal(Rows(x).rows(), Rows(tf.constant(x)).rows())


def test_finite_puts_zeros_in_the_place_of_nan_and_inf(device):
    x = np.arange(12, dtype="f").reshape(2, 3, 2)
    broken = x.copy()
    broken[0, 0], broken[1, 2, 1] = [np.nan, -np.inf], np.inf
    x[0, 0], x[1, 2, 1] = 0, 0
    found = Rows(tf.constant(broken)).finite()
    np.testing.assert_array_equal(found.rows(), x.reshape(-1, 2))
    assert found.matmul(np.ones((2, 1), "f")).dtype == np.float32
    assert np.isnan(Rows(tf.constant(broken)).energies()).any()


def test_the_gradient_of_a_weight_has_the_features_of_both_factors():
    matrix = Formed(np.zeros((2, 1, 6)))
    assert matrix.gradient_shape(4) == (6, 4)
    matrix.n_blocks = 3
    assert matrix.gradient_shape(4) == (2, 4)


def test_tensors_in_the_memory_of_the_host_are_not_copied():
    x = tf.constant(np.ones((4, 2, 3), "f"))
    assert np.shares_memory(array(x), array(x))
    own = np.ones((2, 2))
    assert array(own) is own


def test_neighbours_are_not_copied_and_others_are_gathered():
    x = np.arange(12).reshape(6, 2)
    for examples in (None, np.array([1, 2, 3]), np.array([5])):
        assert np.shares_memory(taken(x, examples), x)
    assert not np.shares_memory(taken(x, np.array([0, 2])), x)
    for own in (x, tf.constant(x)):
        np.testing.assert_array_equal(taken(own, np.array([0, 2, 5])), x[[0, 2, 5]])
        np.testing.assert_array_equal(taken(own, np.array([2, 3])), x[2:4])
