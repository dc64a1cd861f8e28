"""Singular values from Gram matrices: roots of eigenvalues, many matrices of one size at a time.

Runs on the host: many small eigenvalue problems belong on a CPU, and the threads of TensorFlow stay
free for the training that goes on beside. Small matrices are solved side by side by
`compiled/eigenvalues.c`, several times as fast as one by one in NumPy's LAPACK, which solves the
large ones.
"""

import math
from ctypes import c_int64, c_void_p

import numpy as np

from keras_spectral.spectra.compiled import compiled
from keras_spectral.spectra.costs import EIGEN
from keras_spectral.spectra.workers import cut, spread

LANES = 16
"""Matrices that `compiled/eigenvalues.c` solves at a time."""

LARGEST = 128
"""Rows of the largest matrices that it takes; for larger ones LAPACK is as fast."""

ROWS_OF_ONE = 32
"""It takes as long for one matrix as for sixteen. With no more than a matrix for each of so many
rows, LAPACK is faster."""


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
        matrices: float64 array `[…, d, d]`, finite. Only lower triangles are read.

    Returns:
        float64 array `[…, d]`, largest first, with errors of a few roundings of the largest; so a
        zero may come out below zero.
    """
    d = matrices.shape[-1]
    number = math.prod(matrices.shape[:-2])
    given = np.ascontiguousarray(matrices).reshape(number, d, d)
    many = 0 < d <= min(LARGEST, ROWS_OF_ONE * number - 1)
    solve, together = (_side_by_side, LANES) if many else (np.linalg.eigvalsh, 1)
    cost = EIGEN * number * d**3
    parts = [given[part] for part in cut(number, cost, together)]
    found = np.concatenate(spread(solve, parts, cost)) if len(parts) > 1 else solve(given)
    return found.reshape(matrices.shape[:-1])[..., ::-1]


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
        eigenvalues, vectors = np.linalg.eigh(matrix)
        return vectors * np.sqrt(np.maximum(eigenvalues, 0.0))


def _finite(gram, finite):
    # LAPACK may refuse or never end on NaN: solve identities, answer NaN.
    if finite.all():
        return gram
    return np.where(finite[..., None, None], gram, np.eye(gram.shape[-1]))
