"""Looked-up tokens, against the one-hot rows they stand for."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_spectral.matrices.base import Rows
from keras_spectral.matrices.one_hot import OneHot

PRECISE = 1e-12
"""Absolute, of sums of a few tens of float64 numbers around 1."""

OF_SVD = 1e-13
"""Absolute: roundings of LAPACK, whose singular values are at most 5 here."""


def made(n, s, vocabulary, seed=0):
    """Return tokens, and the one-hot rows `[n, s, v]`."""
    ids = np.random.default_rng(seed).integers(0, vocabulary, (n, s))
    return OneHot(tf.constant(ids, tf.int32), vocabulary), np.eye(vocabulary)[ids]


def of(x, examples):
    own = x if examples is None else x[examples]
    return own.reshape(-1, x.shape[-1])


@pytest.mark.parametrize("vocabulary", [1, 3, 40])
def test_rows_gram_and_energies_are_those_of_one_hot_rows(vocabulary, examples, device):
    tokens, wanted = made(6, 5, vocabulary)
    assert (tokens.n, tokens.positions, tokens.width) == wanted.shape
    np.testing.assert_array_equal(tokens.rows(examples), of(wanted, examples))
    gram = of(wanted, examples).T @ of(wanted, examples)
    np.testing.assert_array_equal(tokens.gram(examples), gram)
    np.testing.assert_array_equal(tokens.energies(), np.full(6, 5.0))


@pytest.mark.parametrize("vocabulary", [1, 3, 40])
def test_singular_values_are_the_roots_of_counts(vocabulary, examples, device):
    tokens, wanted = made(6, 5, vocabulary)
    values = np.linalg.svd(of(wanted, examples), compute_uv=False)
    np.testing.assert_allclose(tokens.singular_values(examples), values, rtol=0, atol=OF_SVD)


def assert_product(found, gradient):
    """Compare gradients, of which rows that are zero may be left out."""
    v, o = gradient.shape
    assert found.shape[1] == o
    if v < o:
        np.testing.assert_allclose(found, gradient, rtol=0, atol=PRECISE)
    else:
        there = np.any(gradient, axis=1)
        np.testing.assert_allclose(found, gradient[there], rtol=0, atol=PRECISE)


@pytest.mark.parametrize("vocabulary", [1, 3, 40])
@pytest.mark.parametrize("o", [1, 4, 50])
def test_product_sums_rows_by_token(vocabulary, o, examples, device):
    tokens, wanted = made(6, 5, vocabulary)
    delta = np.random.default_rng(1).standard_normal((6, 5, o))
    found = tokens.product(Rows(tf.constant(delta)), examples)
    assert_product(found, of(wanted, examples).T @ of(delta, examples))


@settings(max_examples=40, deadline=None)
@given(data=st.data(), vocabulary=st.integers(1, 9), s=st.integers(1, 5), o=st.integers(1, 6))
def test_any_tokens_equal_one_hot_rows(data, vocabulary, s, o):
    tokens, wanted = made(4, s, vocabulary, data.draw(st.integers(0, 99)))
    own = np.array(sorted(data.draw(st.sets(st.integers(0, 3), min_size=1))))
    values = np.linalg.svd(of(wanted, own), compute_uv=False)
    np.testing.assert_allclose(tokens.singular_values(own), values, rtol=0, atol=OF_SVD)
    delta = np.random.default_rng(o).standard_normal((4, s, o))
    assert_product(
        tokens.product(Rows(tf.constant(delta)), own), of(wanted, own).T @ of(delta, own)
    )


def test_products_with_columns_look_rows_up():
    tokens, wanted = made(6, 5, 7)
    columns, rows = np.arange(14.0).reshape(7, 2), np.arange(60.0).reshape(6, 5, 2)
    np.testing.assert_array_equal(tokens.matmul(columns), wanted @ columns)
    np.testing.assert_array_equal(tokens.rmatmul(rows), np.einsum("nsv,nsc->vc", wanted, rows))


def test_calls_are_joined_in_their_order():
    (one, first), (other, second) = made(3, 2, 5), made(3, 4, 5, seed=1)
    joined = np.concatenate([first, second], axis=1)
    np.testing.assert_array_equal(one.joined([other]).rows(), joined.reshape(-1, 5))


def test_gradients_of_groups_are_no_sums_of_those_of_examples_which_leave_rows_out():
    assert not made(2, 2, 3)[0].adds_up


def test_a_graph_may_make_them_of_sizes_it_does_not_know():
    ids = np.array([[0, 2, 2], [1, 0, 2]])
    make = tf.function(lambda ids: OneHot(ids, 3), input_signature=[tf.TensorSpec([None, None])])
    found = make(tf.constant(ids, tf.float32))
    assert (found.n, found.positions) == (2, 3)
