"""Eigenvalues side by side, against LAPACK's one by one."""

import ctypes
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras_spectral.spectra.eigen import LANES, LARGEST, eigenvalues, singular_values

from keras_spectral.spectra import compiled, eigen

ROUNDINGS = 100 * np.finfo(float).eps
"""Of the largest eigenvalue. LAPACK itself is within about ten of an exact one for 128 rows."""


def gram_matrices(n, d, decays, seed):
    rng = np.random.default_rng(seed)
    matrices = rng.standard_normal((n, d, len(decays))) * decays
    return matrices @ matrices.swapaxes(1, 2)


def assert_eigenvalues(matrices):
    want = np.linalg.eigvalsh(matrices)[..., ::-1]
    found = eigenvalues(matrices)
    assert found.shape == want.shape
    assert np.all(np.abs(found - want) <= ROUNDINGS * want[..., :1])


def test_the_compiled_library_is_what_is_tested():
    assert compiled.LIBRARY.exists()


@given(
    n=st.integers(1, 40),
    d=st.integers(1, 40),
    rank=st.integers(1, 60),
    decay=st.floats(-8, 0),
    scale=st.integers(-120, 120),
    seed=st.integers(0, 2**32 - 1),
)
@settings(deadline=None)
def test_any_number_of_small_matrices(n, d, rank, decay, scale, seed):
    assert_eigenvalues(gram_matrices(n, d, np.logspace(0, decay, rank), seed) * 10.0**scale)


@pytest.mark.parametrize("d", [64, LARGEST - 1, LARGEST, LARGEST + 1])
@pytest.mark.parametrize("rank", [5, 200])
def test_sizes_around_the_largest(d, rank):
    assert_eigenvalues(gram_matrices(18, d, np.ones(rank), seed=d))


@pytest.mark.parametrize(
    "matrix",
    [
        np.zeros((9, 9)),
        np.eye(9),
        np.ones((9, 9)),
        np.diag([1.0, 0, 0, 1, 0, 1e-300, 0, 0, 1]),
        np.diag(np.r_[1.0, np.full(8, 1e-16)]),
        np.kron(np.eye(3), np.ones((3, 3))),
        np.eye(9) + np.diag(np.full(8, 1e-12), 1) + np.diag(np.full(8, 1e-12), -1),
        np.full((9, 9), 5e-324),
    ],
    ids=["zero", "identity", "ones", "few", "noise", "blocks", "nearly equal", "denormal"],
)
def test_matrices_with_equal_or_no_eigenvalues(matrix):
    assert_eigenvalues(np.stack([matrix, np.eye(9)]))


def test_a_matrix_does_not_depend_on_those_it_is_solved_with():
    matrices = gram_matrices(37, 24, np.logspace(0, -5, 24), seed=0)
    alone = np.concatenate([eigenvalues(matrix[None]) for matrix in matrices])
    np.testing.assert_array_equal(eigenvalues(matrices), alone)


def test_views_and_stacks_of_stacks():
    matrices = gram_matrices(12, 7, np.ones(7), seed=0)
    np.testing.assert_array_equal(
        eigenvalues(matrices.reshape(3, 4, 7, 7)), eigenvalues(matrices).reshape(3, 4, 7)
    )
    np.testing.assert_array_equal(eigenvalues(matrices[::2]), eigenvalues(matrices)[::2])
    assert eigenvalues(np.empty((0, 5, 5))).shape == (0, 5)
    assert eigenvalues(np.empty((4, 0, 0))).shape == (4, 0)


def test_without_the_compiled_library_lapack_does_all(monkeypatch):
    matrices = gram_matrices(12, 7, np.ones(7), seed=0)
    monkeypatch.setattr(compiled, "LIBRARY", Path("nowhere.so"))
    np.testing.assert_array_equal(eigenvalues(matrices), np.linalg.eigvalsh(matrices)[:, ::-1])


def test_one_that_does_not_converge_leaves_those_beyond_its_lanes_as_they_are(monkeypatch):
    matrices = gram_matrices(3 * LANES, 7, np.ones(7), seed=0)
    undisturbed, bad = eigenvalues(matrices), matrices[LANES + 3]
    solve = eigen.compiled("eigenvalues", *4 * [ctypes.c_int64])

    def not_of_bad(given, number, d, found):
        memory = (ctypes.c_double * (number * d * d)).from_address(given)
        own = np.frombuffer(memory).reshape(number, d, d)
        return int((own == bad).all(axis=(1, 2)).any()) or solve(given, number, d, found)

    monkeypatch.setattr(eigen, "compiled", lambda *_: not_of_bad)
    found = eigenvalues(matrices)
    near = slice(LANES, 2 * LANES)
    np.testing.assert_array_equal(found[near], np.linalg.eigvalsh(matrices[near])[:, ::-1])
    for others in (slice(LANES), slice(2 * LANES, None)):
        np.testing.assert_array_equal(found[others], undisturbed[others])


def test_a_matrix_with_nan_has_a_spectrum_of_nan_and_its_neighbours_have_theirs():
    matrices = gram_matrices(3, 5, np.ones(5), seed=0)
    want, _ = singular_values(matrices)
    matrices[1, 2, 2] = np.nan
    sigma, norm = singular_values(matrices)
    assert np.isnan(sigma[1]).all()
    assert np.isnan(norm[1])
    np.testing.assert_array_equal(sigma[[0, 2]], want[[0, 2]])


@pytest.mark.parametrize("shape", [(0, 3, 3), (2, 0, 0), (0, 0, 0), (2, 0, 200, 200)])
def test_no_matrices_and_empty_ones(shape):
    assert eigenvalues(np.zeros(shape)).shape == shape[:-1]
