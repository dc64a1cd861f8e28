"""Singular values of activations, adjoints and gradients, for the whole batch and every group."""

import tensorflow as tf

from keras_spectral.spectra.gram import GramRoute
from keras_spectral.spectra.matrices import Spectrum, group_matrix, rank_bound


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
        List of dictionaries, one per factor: quantity -> list of one `Spectrum` (whole batch,
        `g = 1`), or two (whole batch, then the groups).
    """
    gram = [j for j, factor in enumerate(factors) if not _uses_svd(factor, method)]
    route = GramRoute([factors[j] for j in gram], quantities, sizes)
    results = [{quantity: [] for quantity in quantities} for _ in factors]
    for block in [None] if rows is None else [None, rows]:
        found = {(gram[p], q): spectrum for (p, q), spectrum in route.spectra(block).items()}
        for j, result in enumerate(results):
            for quantity in quantities:
                spectrum = found.get((j, quantity))
                result[quantity].append(spectrum or svd_spectrum(factors[j], quantity, block))
    return results


def svd_spectrum(factor, quantity, rows):
    """Return the spectra of one quantity by `tf.linalg.svd` of the matrices themselves.

    Args:
        factor: `Factors` of one weight.
        quantity: `"activation"`, `"adjoint"` or `"gradient"`.
        rows: `GroupRows`, or `None` for the whole batch.

    Returns:
        A `Spectrum`.
    """
    matrix = group_matrix(factor, quantity, rows)
    finite = tf.reduce_all(tf.math.is_finite(matrix), axis=[1, 2])
    safe = tf.where(finite[:, None, None], matrix, 0.0)
    sigma = tf.linalg.svd(safe, compute_uv=False)[:, : rank_bound(factor, quantity, rows)]
    nan = tf.constant(float("nan"), tf.float64)
    norm = tf.sqrt(tf.reduce_sum(safe * safe, axis=[1, 2]))
    return Spectrum(tf.where(finite[:, None], sigma, nan), tf.where(finite, norm, nan))


def _uses_svd(factor, method):
    # A Gram matrix halves the digits: harmless for float32 data in float64, not for float64 data.
    return method == "svd" or (method == "auto" and factor.activation.dtype == tf.float64)
