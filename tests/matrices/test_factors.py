"""The matrices of a weight, of whatever form its factors are, against NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from keras_spectral.matrices.base import Rows
from keras_spectral.matrices.factors import (
    Factors,
    WeightMatrices,
    as_matrix,
    in_rows,
    joined_calls,
    with_positions,
)
from keras_spectral.matrices.gates import Gates
from keras_spectral.matrices.members import Members
from keras_spectral.matrices.one_hot import OneHot
from keras_spectral.matrices.patches import Patches
from tests.oracles.patches import patches, product_of_blocks

N = 6
MASK = np.array([[1, 0, 1], [1, 0, 0], [0, 0, 0], [0, 0, 1], [1, 0, 0], [0, 0, 1]], bool)
"""Two groups that overlap, and one that is absent between them."""

PRECISE = 1e-12
"""Absolute, of sums of some tens of float64 numbers around 1."""


def normal(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def in_product():
    a, d = normal(N, 3, 5), normal(N, 3, 4)
    return Factors(tf.constant(a), tf.constant(d)), a, d, np.einsum("nsi,nso->nio", a, d)


def convolution(blocks=1):
    x, d = normal(N, 7, 4), normal(N, 7, 6)
    a = patches(x, (3,), (1,), (1,), "same", blocks)
    own = [product_of_blocks(a[[n]], d[[n]], blocks) for n in range(N)]
    made = Patches((tf.constant(x),), (3,), (1,), (1,), "same", blocks)
    return Factors(made, tf.constant(d)), a, d, np.stack(own)


def transposed_convolution():
    x, a = normal(N, 7, 4), normal(N, 7, 5)
    d = patches(x, (3,), (1,), (1,), "same")
    made = Patches((tf.constant(x),), (3,), (1,), (1,), "same", 1)
    return Factors(tf.constant(a), made), a, d, np.einsum("nsi,nso->nio", a, d)


def embedding(vocabulary):
    ids, d = np.random.default_rng(0).integers(0, vocabulary, (N, 3)), normal(N, 3, 4)
    a = np.eye(vocabulary)[ids]
    made = OneHot(tf.constant(ids), vocabulary)
    return Factors(made, tf.constant(d)), a, d, np.einsum("nsi,nso->nio", a, d)


def gates():
    a, d = normal(N, 3, 4), normal(N, 3, 5)
    parts = [np.einsum("nsi,nso->nio", a[..., :2], d[..., :3])]
    parts += [np.einsum("nsi,nso->nio", a[..., 2:], d[..., 3:])]
    made = Gates(tf.constant(a), (3, 2))
    return Factors(made, tf.constant(d)), a, d, np.concatenate(parts, axis=-1)


def by_example():
    a, d, own = normal(N, 3, 5), normal(N, 2, 4), normal(N, 2, 7)
    return Factors(tf.constant(a), tf.constant(d), tf.constant(own)), a, d, own


def no_product():
    a, d, own = normal(N, 3, 5), normal(N, 2, 4), normal(N, 2, 7)
    groups = np.stack([own[members].sum(axis=0) for members in Members.of(MASK).mask.T])
    return Factors(tf.constant(a), tf.constant(d), None, tf.constant(groups)), a, d, own


def vector():
    own = normal(N, 1, 7)
    return Factors(None, None, tf.constant(own)), None, None, own


CASES = {
    "product": in_product,
    "convolution": convolution,
    "grouped convolution": lambda: convolution(2),
    "transposed convolution": transposed_convolution,
    "embedding": lambda: embedding(9),
    "small embedding": lambda: embedding(3),
    "gates": gates,
    "by example": by_example,
    "no product": no_product,
    "vector": vector,
}


@pytest.fixture(params=CASES)
def case(request):
    """Name, matrices, activation, adjoint and per-example gradients of a weight."""
    factors, *rest = CASES[request.param]()
    return request.param, WeightMatrices(factors), *rest


def assert_gradient(found, wanted, name):
    assert isinstance(found, np.ndarray)
    assert found.dtype == float
    wanted = wanted[np.any(wanted, axis=1)] if name == "embedding" else wanted
    np.testing.assert_allclose(found, wanted, rtol=0, atol=PRECISE)


def test_gradient_of_a_group_sums_those_of_its_examples(case, device):
    name, matrices, _, _, own = case
    members = Members.of(MASK)
    for g in (0, 1, 3):
        assert_gradient(matrices.gradient(members, g), own[members.mask[:, g]].sum(axis=0), name)


@pytest.mark.parametrize("case", [name for name in CASES if name != "no product"], indirect=True)
def test_gradient_of_an_example_is_its_own(case, device):
    name, matrices, _, _, own = case
    for n in range(N):
        assert_gradient(matrices.gradient_of_example(n), own[n], name)


def test_shapes_and_what_bounds_ranks(case):
    name, matrices, a, d, own = case
    assert matrices.gradient_shape == own.shape[1:]
    assert matrices.width("gradient") == min(own.shape[1:])
    if a is None:
        assert matrices.recorded == ("gradient",)
        assert matrices.positions("gradient") == 1
    else:
        assert matrices.recorded == ("activation", "adjoint", "gradient")
        for quantity, wanted in (("activation", a), ("adjoint", d)):
            assert matrices.positions(quantity) == wanted.shape[1]
            assert matrices.width(quantity) == wanted.shape[2]
            assert matrices.of(quantity).positions == wanted.shape[1]
        assert matrices.positions("gradient") == d.shape[1]
    in_blocks = name in ("gates", "grouped convolution")
    assert matrices.bounded_by_rows == (name != "no product" and not in_blocks)
    assert matrices.is_product == (
        matrices.bounded_by_rows and name not in ("by example", "vector")
    )


def test_what_adds_up_over_examples(case):
    name, matrices, *_ = case
    assert matrices.adds_up("activation")
    assert matrices.adds_up("adjoint")
    not_sums = ("no product", "embedding", "small embedding")
    assert matrices.adds_up("gradient") == (name not in not_sums)


def test_float64_in_any_factor_is_found(case):
    _, matrices, *_ = case
    assert matrices.is_float64


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_fewer_bits_are_no_float64(dtype):
    a, d = (tf.cast(normal(2, 1, 3), dtype) for _ in range(2))
    assert not WeightMatrices(Factors(a, d)).is_float64
    x = Patches((a,), (1,), (1,), (1,), "same", 1)
    assert not WeightMatrices(Factors(x, d)).is_float64
    assert WeightMatrices(Factors(x, tf.cast(d, tf.float64))).is_float64
    assert not WeightMatrices(Factors(None, None, d)).is_float64


def test_as_matrix_takes_tensors_arrays_and_forms():
    x = normal(2, 3, 4)
    gates = Gates(tf.constant(x), (1, 1))
    assert as_matrix(gates) is gates
    for part in (x, tf.constant(x)):
        assert isinstance(as_matrix(part), Rows)


def test_one_call_is_left_as_it_is():
    factors, *_ = in_product()
    assert joined_calls([factors]) is factors


@pytest.mark.parametrize(
    "name",
    [
        "product",
        "convolution",
        "grouped convolution",
        "transposed convolution",
        "small embedding",
        "gates",
    ],
)
def test_rows_of_all_calls_are_those_of_one_weight(name):
    factors, a, d, own = CASES[name]()
    joined = WeightMatrices(joined_calls([factors, factors, factors]))
    for quantity, wanted in (("activation", a), ("adjoint", d)):
        rows = np.concatenate([wanted] * 3, axis=1)
        assert joined.positions(quantity) == rows.shape[1]
        np.testing.assert_array_equal(joined.of(quantity).rows(), rows.reshape(-1, rows.shape[2]))
    found = joined.gradient(Members.of(MASK), 1)
    np.testing.assert_allclose(found, 3 * own[MASK[:, 0]].sum(axis=0), rtol=0, atol=PRECISE)


def test_gradients_of_examples_add_up_over_calls():
    factors, *_, own = by_example()
    joined = joined_calls([factors, factors])
    np.testing.assert_allclose(joined.example_gradients, 2 * own)
    assert joined.activation.shape[1] == 2 * factors.activation.shape[1]


@pytest.mark.parametrize("middle", [(), (3,), (3, 2), (0,)])
def test_middle_axes_become_positions(middle):
    x = normal(2, *middle, 5)
    found = with_positions(tf.constant(x), 2)
    np.testing.assert_array_equal(found, x.reshape(2, int(np.prod(middle)), 5))


def test_middle_axes_that_a_graph_does_not_know():
    make = tf.function(lambda x: with_positions(x, tf.shape(x)[0]))
    make = make.get_concrete_function(tf.TensorSpec([None, None, 2, 5], tf.float64))
    x = normal(2, 3, 2, 5)
    np.testing.assert_array_equal(make(tf.constant(x)), x.reshape(2, 6, 5))


def test_forms_of_their_own_are_no_rows():
    gates = Gates(tf.constant(normal(2, 3, 4)), (1, 1))
    assert in_rows(gates, 2) is gates
    assert in_rows(tf.constant(normal(2, 5)), 2).shape == (2, 1, 5)
