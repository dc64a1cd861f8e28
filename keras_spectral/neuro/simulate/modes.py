"""Directions in which simulated subjects differ, the same in every study.

Letters: `k` mode, `f` feature.
"""

import numpy as np


def orthonormal(patterns):
    """Make patterns orthonormal, each to those before it, and leave their signs.

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
    """Return a generator of what belongs to no subject, such as the mean.

    Args:
        *numbers: At least two integers. Of one, as subjects have, it would be their generator.

    Returns:
        `numpy.random.Generator`.
    """
    return np.random.default_rng(list(numbers))
