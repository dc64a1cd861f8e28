"""Singular values of activations, adjoints and gradients, for the whole batch and every group."""

import tensorflow as tf

from keras_spectral.spectra.gram import GramRoute
from keras_spectral.spectra.matrices import Spectra, group_matrix


def spectra(factors, rows, quantities, method="auto", sizes=(32,)):
    """Return the spectra of several layers, for the whole batch and for each group.

    Args:
        factors: List of `Factors`, one per weight, of the same batch.
        rows: `GroupRows` of that batch, or `None` if there are no groups.
        quantities: Some of `"activation"`, `"adjoint"`, `"gradient"`.
        method: `"gram"` (`keras_spectral.spectra.gram`), `"svd"` (`tf.linalg.svd` of the matrices
            on the device of the data), or `"auto"`: `"svd"` for float64 data, else `"gram"`.
        sizes: Expected examples of the batch and of each group. Only the choice of the cheaper
            side depends on it, never a result.

    Returns:
        List of one block (the whole batch, `g = 1`) or two (whole batch, then the groups). A block
        is a list of `Spectra`, which together name every factor and quantity once, in the same
        order in both blocks.
    """
    by_svd = [j for j, factor in enumerate(factors) if _uses_svd(factor, method)]
    by_gram = [j for j in range(len(factors)) if j not in by_svd]
    route = GramRoute([factors[j] for j in by_gram], quantities, sizes)
    blocks = []
    for block in [None] if rows is None else [None, rows]:
        found = [_renumbered(solved, by_gram) for solved in route.spectra(block)]
        found += [svd_spectra(factors, j, q, block) for j in by_svd for q in quantities]
        blocks.append(found)
    return blocks


def svd_spectra(factors, j, quantity, rows):
    """Return the spectra of one quantity by `tf.linalg.svd` of the matrices themselves.

    Args:
        factors: List of `Factors`.
        j: Which of them.
        quantity: `"activation"`, `"adjoint"` or `"gradient"`.
        rows: `GroupRows`, or `None` for the whole batch.

    Returns:
        A `Spectra` with one name.
    """
    matrix = group_matrix(factors[j], quantity, rows)[None]
    finite = tf.reduce_all(tf.math.is_finite(matrix), axis=[2, 3])
    safe = tf.where(finite[..., None, None], matrix, 0.0)
    nan = tf.constant(float("nan"), tf.float64)
    sigma = tf.where(finite[..., None], tf.linalg.svd(safe, compute_uv=False), nan)
    norm = tf.where(finite, tf.sqrt(tf.reduce_sum(safe * safe, axis=[2, 3])), nan)
    return Spectra(((j, quantity),), sigma, norm)


def _renumbered(solved, indices):
    return solved._replace(names=tuple((indices[j], quantity) for j, quantity in solved.names))


def _uses_svd(factor, method):
    # A Gram matrix halves the digits: harmless for float32 data in float64, not for float64 data.
    return method == "svd" or (method == "auto" and factor.activation.dtype == tf.float64)
