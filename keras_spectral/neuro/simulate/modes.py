"""Directions in which simulated subjects differ, the same in every study.

Letters: `k` mode, `f` feature.
"""

import numpy as np


def orthonormal(patterns):
    """Orthonormalise patterns, each with respect to those before it, with their signs kept.

    Args:
        patterns: Float array `[k, f]`, linearly independent.

    Returns:
        Float64 array `[k, f]` with orthonormal rows; the first rows span what the first patterns
        span.

    Example:
        >>> orthonormal([[2, 0], [1, 1]])
        array([[1., 0.],
               [0., 1.]])
    """
    modes, triangle = np.linalg.qr(np.asarray(patterns, dtype=float).T)
    return (modes * np.sign(np.diag(triangle))).T + 0.0  # no negative zeros


def fixed_generator(*numbers):
    """Return a random generator for what does not depend on the subjects, such as the mean.

    Args:
        *numbers: At least two integers as seed. The generator of the subjects is seeded with one.

    Returns:
        `numpy.random.Generator`.
    """
    return np.random.default_rng(list(numbers))
