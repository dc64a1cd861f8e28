"""Singular values from Gram matrices: roots of eigenvalues, many matrices of one size at a time.

Runs on the host, in NumPy's LAPACK: many small eigenvalue problems belong on a CPU, and the threads
of TensorFlow stay free for the training that goes on beside.
"""

import numpy as np


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
    eigenvalues = np.linalg.eigvalsh(_finite(gram, finite))[..., ::-1]
    sigma = np.sqrt(np.maximum(eigenvalues, 0.0))
    sigma[~finite] = np.nan
    return sigma, norm


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
