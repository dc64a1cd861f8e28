"""Work of the host: threads that change no number, and eigenvalues against LAPACK's."""

import ctypes
import gc
import os
import threading
import time
import warnings
import weakref
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import keras_spectral.compiled
from keras_spectral.spectra import host
from keras_spectral.spectra.host import LANES, LARGEST, cut, eigenvalues, parallel, root
from keras_spectral.spectra.host import singular_values as singular_values_of_gram

ROUNDINGS = 100 * np.finfo(float).eps
"""Of the largest eigenvalue. LAPACK itself is within about ten of an exact one for 128 rows."""

MUCH = 10**12
"""Multiplications that are worth a thread of their own."""


# --- eigenvalues ---


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
    assert keras_spectral.compiled.LIBRARY.exists()


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


@pytest.mark.parametrize("compiled", [True, False])
def test_every_size_up_to_two_hundred(compiled, monkeypatch):
    if not compiled:
        monkeypatch.setattr(keras_spectral.compiled, "LIBRARY", Path("nowhere.so"))
    for d in (*range(1, 34), *range(36, 201, 4)):
        assert_eigenvalues(gram_matrices(d // 32 + 2, d, np.logspace(0, -6, d), seed=d))


@pytest.mark.parametrize("d", [64, LARGEST - 1, LARGEST, LARGEST + 1])
@pytest.mark.parametrize("rank", [5, 200])
def test_sizes_around_the_largest(d, rank):
    assert_eigenvalues(gram_matrices(18, d, np.ones(rank), seed=d))


@pytest.mark.parametrize("d", [2, 3, 9, 40])
@pytest.mark.parametrize("width", [0.0, 1e-15, 1e-9, 1e-3])
def test_clusters_of_eigenvalues(d, width):
    turns = np.linalg.qr(np.random.default_rng(d).standard_normal((20, d, d)))[0]
    values = np.repeat([1.0, 0.5], [d - d // 2, d // 2]) + width * np.arange(d) / d
    assert_eigenvalues((turns * values) @ turns.swapaxes(1, 2))


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


@pytest.mark.parametrize("d", [24, 60, LARGEST, LARGEST + 2])
def test_a_matrix_does_not_depend_on_those_it_is_solved_with(d):
    matrices = gram_matrices(37, d, np.logspace(0, -5, d), seed=0)
    alone = np.concatenate([eigenvalues(matrix[None]) for matrix in matrices])
    np.testing.assert_array_equal(eigenvalues(matrices), alone)


def test_views_and_stacks_of_stacks():
    matrices = gram_matrices(12, 7, np.ones(7), seed=0)
    np.testing.assert_array_equal(
        eigenvalues(matrices.reshape(3, 4, 7, 7)), eigenvalues(matrices).reshape(3, 4, 7)
    )
    np.testing.assert_array_equal(eigenvalues(matrices[::2]), eigenvalues(matrices)[::2])


@pytest.mark.parametrize(
    "shape", [(0, 3, 3), (0, 5, 5), (2, 0, 0), (4, 0, 0), (0, 0, 0), (2, 0, 200, 200)]
)
def test_no_matrices_and_empty_ones(shape):
    assert eigenvalues(np.zeros(shape)).shape == shape[:-1]


@pytest.mark.parametrize("d", [1, 24, 60, 200])
def test_one_matrix_alone(d):
    (matrix,) = gram_matrices(1, d, np.ones(d), seed=0)
    assert_eigenvalues(matrix)


def test_only_lower_triangles_are_read():
    matrices = gram_matrices(20, 7, np.ones(7), seed=0)
    spoiled = np.tril(matrices) + np.triu(np.full((7, 7), 1e9), 1)
    np.testing.assert_array_equal(eigenvalues(spoiled), eigenvalues(matrices))


def test_without_the_compiled_library_lapack_does_all(monkeypatch):
    matrices = gram_matrices(12, 7, np.ones(7), seed=0)
    monkeypatch.setattr(keras_spectral.compiled, "LIBRARY", Path("nowhere.so"))
    np.testing.assert_array_equal(eigenvalues(matrices), np.linalg.eigvalsh(matrices)[:, ::-1])


def test_one_that_does_not_converge_leaves_those_beyond_its_lanes_as_they_are(monkeypatch):
    matrices = gram_matrices(3 * LANES, 7, np.ones(7), seed=0)
    undisturbed, bad = eigenvalues(matrices), matrices[LANES + 3]
    solve = host.compiled("eigenvalues", *4 * [ctypes.c_int64])

    def not_of_bad(given, number, d, found):
        memory = (ctypes.c_double * (number * d * d)).from_address(given)
        own = np.frombuffer(memory).reshape(number, d, d)
        return int((own == bad).all(axis=(1, 2)).any()) or solve(given, number, d, found)

    monkeypatch.setattr(host, "compiled", lambda *_: not_of_bad)
    found = eigenvalues(matrices)
    near = slice(LANES, 2 * LANES)
    np.testing.assert_array_equal(found[near], np.linalg.eigvalsh(matrices[near])[:, ::-1])
    for others in (slice(LANES), slice(2 * LANES, None)):
        np.testing.assert_array_equal(found[others], undisturbed[others])


# --- singular values and roots of Gram matrices ---


@pytest.mark.parametrize("rank", [1, 3, 9])
def test_singular_values_and_norms_are_those_of_the_matrix(rank):
    rng = np.random.default_rng(0)
    matrices = rng.standard_normal((4, 20, rank)) @ rng.standard_normal((4, rank, 9))
    sigma, norm = singular_values_of_gram(matrices.swapaxes(1, 2) @ matrices)
    want = np.linalg.svd(matrices, compute_uv=False)
    # A Gram matrix keeps half of the digits of small ones.
    assert np.abs(sigma**2 - want**2).max() <= ROUNDINGS * want.max() ** 2
    np.testing.assert_allclose(norm, np.linalg.norm(matrices, axis=(1, 2)), rtol=ROUNDINGS)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("d", [5, LARGEST + 2])
def test_a_matrix_with_nan_has_a_spectrum_of_nan_and_its_neighbours_have_theirs(d, bad):
    matrices = gram_matrices(8, d, np.ones(5), seed=0)
    want, _ = singular_values_of_gram(matrices)
    matrices[1, 2, 2] = bad
    sigma, norm = singular_values_of_gram(matrices)
    assert np.isnan(sigma[1]).all()
    assert np.isnan(norm[1])
    others = np.arange(8) != 1
    np.testing.assert_array_equal(sigma[others], want[others])
    assert np.isfinite(norm[others]).all()


@pytest.mark.parametrize("rank", [1, 4, 9])
def test_a_root_times_itself_is_the_gram_matrix(rank):
    grams = gram_matrices(6, 9, np.ones(rank), seed=0)
    grams[2] = 0.0
    found = root(grams)
    product = found @ found.swapaxes(1, 2)
    np.testing.assert_allclose(product, grams, rtol=0, atol=ROUNDINGS * np.abs(grams).max())


def test_a_root_does_not_depend_on_those_it_is_found_with():
    singular, regular = gram_matrices(3, 9, np.ones(2), 0), gram_matrices(3, 9, np.ones(20), 1)
    together = root(np.concatenate([regular, singular]))
    np.testing.assert_array_equal(together[:3], root(regular))
    np.testing.assert_array_equal(together[3], root(singular[:1])[0])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_root_of_nan_is_nan_and_its_neighbours_have_theirs(bad):
    grams = gram_matrices(3, 5, np.ones(9), seed=0)
    want = root(grams)
    grams[1, 2, 2] = bad
    found = root(grams)
    assert np.isnan(found[1]).all()
    np.testing.assert_array_equal(found[[0, 2]], want[[0, 2]])


# --- threads ---


@pytest.fixture(params=[1, 2, 4])
def cores(request, threads):
    """Pretend that there are so many cores."""
    threads(request.param)
    return request.param


def test_results_come_in_the_order_of_the_items(cores):
    assert parallel(lambda x: x**2, range(100), MUCH) == [x**2 for x in range(100)]
    assert parallel(str, [], MUCH) == []


def test_several_threads_work_at_once(threads):
    threads(3)
    everybody = threading.Barrier(3)
    names = parallel(lambda _: everybody.wait(60) and threading.get_ident(), range(3), MUCH)
    assert len(set(names) - {0}) >= 2


def test_work_within_work_is_done_as_one_piece_by_the_same_thread(cores):
    def of_one(x):
        here = threading.get_ident()
        assert cores == 1 or cut(1000, MUCH) == [slice(0, 1000)]
        found = parallel(lambda y: (threading.get_ident(), x * y), range(5), MUCH)
        assert cores == 1 or {thread for thread, _ in found} == {here}
        return sum(product for _, product in found)

    assert parallel(of_one, range(20), MUCH) == [10 * x for x in range(20)]


def test_a_thread_that_works_begins_no_other_work(threads):
    threads(2)
    own, deepest = threading.local(), []

    def outer(_):
        own.depth = getattr(own, "depth", 0) + 1
        deepest.append(own.depth)
        parallel(lambda k: k, range(4), MUCH)
        own.depth -= 1

    parallel(outer, range(60), MUCH)
    assert max(deepest) == 1


def test_what_is_raised_first_in_order_is_raised_and_the_next_work_is_done(cores):
    def of_one(x):
        if x in (3, 7):
            raise MemoryError(f"no room for {x}")
        return x

    with pytest.raises(MemoryError, match="no room for 3"):
        parallel(of_one, range(10), MUCH)
    assert parallel(of_one, range(3), MUCH) == [0, 1, 2]


def test_what_was_worked_on_is_not_kept(cores):
    items = [np.zeros(3) for _ in range(20)]
    kept = [weakref.ref(item) for item in items]
    made = [weakref.ref(found) for found in parallel(lambda x: x + 1, items, MUCH)]
    del items
    gc.collect()
    latest = time.monotonic() + 10
    while any(ref() is not None for ref in kept + made):  # a thread lets go of its last piece
        assert time.monotonic() < latest
        time.sleep(0.001)


def test_small_work_is_not_handed_over():
    here = threading.get_ident()
    assert set(parallel(lambda _: threading.get_ident(), range(50), 1000)) == {here}


def test_pieces_are_as_quiet_about_nan_as_the_thread_that_waits(cores):
    with warnings.catch_warnings(), np.errstate(invalid="ignore", over="ignore"):
        warnings.simplefilter("error")
        found = parallel(lambda x: np.inf - np.full(3, x), [np.inf] * 20, MUCH)
    assert np.isnan(found).all()


@given(n=st.integers(0, 300), cost=st.integers(0, 10**10), unit=st.integers(1, 20))
def test_slices_hold_each_item_once_and_whole_units(n, cost, unit):
    slices = cut(n, cost, unit)
    assert [item for part in slices for item in range(n)[part]] == list(range(n))
    assert all((part.stop - part.start) % unit == 0 for part in slices)
    assert len(slices) <= max(1, cost // host.WORTH_A_THREAD)
    assert len(slices) <= max(1, host.PIECES * host.n_threads())


def test_no_eigenvalue_depends_on_how_many_threads_there_are(threads):
    found = []
    for number in (1, 2, 5):
        threads(number)
        found.append([eigenvalues(gram_matrices(70, d, np.ones(30), 0)) for d in (9, 150)])
    for others in found[1:]:
        for one, other in zip(found[0], others, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_has_threads_of_its_own():
    assert host._pool(os.getpid()) is host._pool(os.getpid())
    assert host._pool(os.getpid()) is not host._pool(-1)


def test_the_rest_of_a_large_machine_is_the_users(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert host.n_threads() == host.MOST_THREADS
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5}, raising=False)
    assert host.n_threads() == 2


def test_where_no_thread_can_be_started_the_work_is_done_without(monkeypatch):
    class NoThreads:
        def map(self, work, items):
            raise RuntimeError("can't start new thread")

    monkeypatch.setattr(host, "n_threads", lambda: 4)
    monkeypatch.setattr(host, "_pool", lambda pid: NoThreads())
    assert host.parallel(lambda item: item + 1, [1, 2, 3], 10**12) == [2, 3, 4]
