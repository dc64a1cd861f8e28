"""Work of the host: a pool of threads, and eigenvalue problems, many of one size at a time.

Many small eigenvalue problems belong on a CPU. Small matrices are solved side by side by
`compiled/eigenvalues.c`, several times as fast as one by one in NumPy's LAPACK, which solves the
large ones, and all where nothing was compiled. Each piece of work is the same whoever does it, so
no number depends on how many threads there are.
"""

import functools
import math
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from ctypes import c_int64, c_void_p

import numpy as np

from keras_spectral.compiled import compiled

LANES = 16
"""Matrices that `compiled/eigenvalues.c` solves at a time."""

LARGEST = 128
"""Rows of the largest matrices that it takes; for larger ones LAPACK is as fast."""

LARGEST_ALONE = 31
"""Rows of the largest single matrix that it takes: it takes as long for one as for sixteen."""

EIGEN = 5.0
"""Cost of an eigenvalue problem of size d, in units of d³ multiplications of a float64 product by
NumPy, which takes one core beside training 0.017 ns or so for each."""

MOST_THREADS = 8
"""The rest of a large machine is the user's."""

WORTH_A_THREAD = 10_000_000
"""Multiplications of a piece of work, at least: about half a millisecond."""

PIECES = 4
"""Pieces for each thread, at most: one that is late delays the others less."""


def parallel(work, items, cost):
    """Return what a function makes of each of some items, in their order.

    Within such work everything else is done by one thread: what is cut once is not cut again.

    Args:
        work: Function of one item, which no other thread disturbs.
        items: Sequence, the most costly items first.
        cost: Multiplications that all of it takes, about.
    """
    if len(items) < 2 or _pieces(cost) < 2:
        return [work(item) for item in items]
    try:
        found = _pool(os.getpid()).map(_as_one_piece(work), items)
    except RuntimeError:  # no thread can be started: the work is the same without
        return [work(item) for item in items]
    return list(found)


def cut(n, cost, unit=1):
    """Return slices of some items that are alike, as many as are worth a thread each.

    Args:
        n: Number of items.
        cost: Multiplications that all of them take, about.
        unit: Items that are best done together: every slice but the last has a multiple of them.
    """
    size = unit * max(1, math.ceil(n / unit / _pieces(cost)))
    return [slice(begin, begin + size) for begin in range(0, n, size)]


def singular_values(gram):
    """Return the singular values of the matrices whose Gram matrices are given.

    Args:
        gram: float64 array `[…, d, d]`.

    Returns:
        `(sigma, norm)`: singular values `[…, d]`, largest first, and Frobenius norms `[…]`, both
        NaN where the matrix holds a NaN or Inf.
    """
    energy = np.trace(gram, axis1=-2, axis2=-1)
    finite = np.isfinite(energy)
    norm = np.sqrt(np.maximum(energy, 0.0, where=finite, out=np.full_like(energy, np.nan)))
    sigma = np.sqrt(np.maximum(eigenvalues(_finite(gram, finite)), 0.0))
    sigma[~finite] = np.nan
    return sigma, norm


def eigenvalues(matrices):
    """Return the eigenvalues of symmetric positive semidefinite matrices.

    Args:
        matrices: float64 array `[…, d, d]`, finite. Only lower triangles are read. None depends on
            the others.

    Returns:
        float64 array `[…, d]`, largest first, with errors of a few roundings of the largest; so a
        zero may come out below zero.
    """
    d = matrices.shape[-1]
    number = math.prod(matrices.shape[:-2])
    given = np.ascontiguousarray(matrices).reshape(number, d, d)
    # Not by their number, which threads and the end of a recording decide.
    largest = LARGEST_ALONE if matrices.ndim == 2 else LARGEST
    solve, together = (_side_by_side, LANES) if 0 < d <= largest else (np.linalg.eigvalsh, 1)
    cost = EIGEN * number * d**3
    parts = [given[part] for part in cut(number, cost, together)]
    found = np.concatenate(parallel(solve, parts, cost)) if len(parts) > 1 else solve(given)
    return found.reshape(matrices.shape[:-1])[..., ::-1]


def root(gram):
    """Return a root `L` of each Gram matrix, `L Lᵀ`.

    Args:
        gram: float64 array `[…, d, d]`, symmetric and positive semidefinite up to rounding.

    Returns:
        float64 array `[…, d, d]`: the Cholesky factors if there are any, else the eigenvectors
        scaled, which exist for singular matrices too. NaN where `gram` holds a NaN or Inf.
    """
    finite = np.isfinite(np.trace(gram, axis1=-2, axis2=-1))
    safe = _finite(gram, finite)
    try:
        found = np.linalg.cholesky(safe)
    except np.linalg.LinAlgError:
        # Matrix by matrix, so that none depends on what it is solved with.
        flat = safe.reshape(-1, *safe.shape[-2:])
        found = np.stack([_root_of_one(matrix) for matrix in flat]).reshape(safe.shape)
    found[~finite] = np.nan
    return found


def _root_of_one(matrix):
    try:
        return np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(matrix)
        return vectors * np.sqrt(np.maximum(values, 0.0))


def _finite(gram, finite):
    # LAPACK may refuse or never end on NaN: solve identities, answer NaN.
    if finite.all():
        return gram
    return np.where(finite[..., None, None], gram, np.eye(gram.shape[-1]))


def _side_by_side(matrices):
    """Return the eigenvalues of matrices `[n, d, d]`, smallest first."""
    number, d, _ = matrices.shape
    solve = compiled("eigenvalues", c_void_p, c_int64, c_int64, c_void_p)
    if solve is None:
        return np.linalg.eigvalsh(matrices)
    found = np.empty((number, d))
    if solve(matrices.ctypes.data, number, d, found.ctypes.data):
        if number <= LANES:
            return np.linalg.eigvalsh(matrices)
        # Some do not converge: it must not matter with how many others they came.
        parts = [slice(begin, begin + LANES) for begin in range(0, number, LANES)]
        return np.concatenate([_side_by_side(matrices[part]) for part in parts])
    found.sort(axis=-1)
    return found


def _pieces(cost):
    n = 1 if getattr(_OWN, "is_piece", False) else n_threads()
    return 1 if n < 2 else int(max(1, min(PIECES * n, cost // WORTH_A_THREAD)))


def n_threads():
    """Return how many threads there are: one for each core that the process may use, or the most.

    The one that solves is among them.
    """
    allowed = getattr(os, "sched_getaffinity", None)
    return min(MOST_THREADS, len(allowed(0)) if allowed else os.cpu_count() or 1)


@functools.cache
def _pool(pid):
    del pid  # a fork has no threads and needs its own
    return ThreadPoolExecutor(n_threads(), "keras_spectral_pool")


_OWN = threading.local()


def _as_one_piece(work):
    """Return a function that notes, for its thread, that it is a piece of something already."""

    def piece(item):
        _OWN.is_piece = True
        # NaN and Inf are recorded as NaN; NumPy keeps for each thread whether it warns of them.
        with np.errstate(invalid="ignore", over="ignore"):
            return work(item)

    return piece
