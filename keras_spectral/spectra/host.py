"""Computation on the host: a thread pool, and batches of eigenvalue problems of equal size.

Many small eigenvalue problems are fastest on a CPU. Small matrices are solved side by side by
`compiled/eigenvalues.c`, several times as fast as one by one by NumPy's LAPACK, which solves large
ones, and all if the library was not compiled. A piece of work gives the same result in any thread,
so no number depends on the number of threads.
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
"""Rows of the largest matrices that are solved by it; for larger ones LAPACK is as fast."""

LARGEST_ALONE = 31
"""Rows of the largest matrix that is solved by it alone: one takes as long as `LANES`."""

EIGEN = 5.0
"""Cost of an eigenvalue problem of size d, in units of d³ multiplications of a float64 product by
NumPy. One multiplication takes about 0.017 ns of one core while training runs."""

MOST_THREADS = 8
"""Most threads of the pool; the other cores of a large machine are left to training."""

WORTH_A_THREAD = 200_000_000
"""Multiplications of a piece of work, at least: about three milliseconds. Smaller pieces wait for
the interpreter's lock longer than they save."""

PIECES = 4
"""Most pieces per thread. More than one, so that a slow piece delays the others less."""


def parallel(work, items, cost):
    """Return the results of a function for each of some items, in their order.

    Calls from within `work` run in the calling thread: parallel work is not nested.

    Args:
        work: Function of one item that shares no state with other items.
        items: Sequence, the most costly items first.
        cost: Approximate multiplications of all items together.
    """
    if len(items) < 2 or _pieces(cost) < 2:
        return [work(item) for item in items]
    try:
        found = _pool(os.getpid()).map(_as_one_piece(work), items)
    except RuntimeError:  # no thread can be started: the work is the same without
        return [work(item) for item in items]
    return list(found)


def cut(n, cost, unit=1):
    """Return slices of items of equal cost, each large enough for a thread.

    Args:
        n: Number of items.
        cost: Approximate multiplications of all items together.
        unit: Number of items that are best processed together: the length of every slice but the
            last is a multiple of it.
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
        float64 array `[…, d]`, largest first. Errors are a few roundings of the largest eigenvalue,
        so zeros may be returned as small negative numbers.
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
        float64 array `[…, d, d]`: the Cholesky factors where they exist, else the eigenvectors
        scaled by the roots of the eigenvalues. NaN where `gram` holds NaN or Inf.
    """
    finite = np.isfinite(np.trace(gram, axis1=-2, axis2=-1))
    safe = _finite(gram, finite)
    try:
        found = np.linalg.cholesky(safe)
    except np.linalg.LinAlgError:
        # One by one, so that the result for a matrix does not depend on the others.
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
    # LAPACK may raise or not terminate on NaN: solve identities instead, return NaN.
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
        # Some do not converge. Which ones are solved by LAPACK must not depend on the batch: solve
        # each `LANES` of them again.
        parts = [slice(begin, begin + LANES) for begin in range(0, number, LANES)]
        return np.concatenate([_side_by_side(matrices[part]) for part in parts])
    found.sort(axis=-1)
    return found


def _pieces(cost):
    n = 1 if getattr(_OWN, "is_piece", False) else n_threads()
    return 1 if n < 2 else int(max(1, min(PIECES * n, cost // WORTH_A_THREAD)))


def n_threads():
    """Return the number of threads: the cores that the process may use, at most `MOST_THREADS`.

    The thread that solves is one of them.
    """
    allowed = getattr(os, "sched_getaffinity", None)
    return min(MOST_THREADS, len(allowed(0)) if allowed else os.cpu_count() or 1)


@functools.cache
def _pool(pid):
    del pid  # a fork has no threads and needs its own
    return ThreadPoolExecutor(n_threads(), "keras_spectral_pool")


_OWN = threading.local()


def _as_one_piece(work):
    """Return a function that marks its thread as one that runs a piece of parallel work."""

    def piece(item):
        _OWN.is_piece = True
        # NaN and Inf are recorded as NaN. NumPy's warnings are set for each thread separately.
        with np.errstate(invalid="ignore", over="ignore"):
            return work(item)

    return piece
