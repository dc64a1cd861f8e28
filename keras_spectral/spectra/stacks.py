"""The choice of how each spectrum is found: on which side of its matrix, or by a device's SVD.

A step does little: it keeps what it has (`keeping`). All else happens later and elsewhere (`pile`):
what was kept is condensed to small matrices, and their singular values are found for many steps at
once. For small networks the number of operations is the cost, not the arithmetic.
"""

from collections import defaultdict

import tensorflow as tf

from keras_spectral.spectra.costs import is_thin, prefers_rows, prefers_rows_for_gradient
from keras_spectral.spectra.device_svd import DeviceSvd
from keras_spectral.spectra.feature_grams import FeatureGrams
from keras_spectral.spectra.row_grams import RowGrams

FACTORS = ("activation", "adjoint")


def stacks_for(factors, quantities, method="auto", sizes=(32,)):
    """Choose how the spectra of several layers are found.

    Args:
        factors: List of `Factors`, one per weight. Only shapes and types are used.
        quantities: Some of `"activation"`, `"adjoint"`, `"gradient"`.
        method: `"gram"` (roots of eigenvalues of Gram matrices, of rows or of features), `"svd"`
            (`tf.linalg.svd` on the device of the data), or `"auto"`: `"svd"` for float64 data,
            else `"gram"`.
        sizes: Expected examples of the batch and of each group. Only the choice of the cheaper
            side depends on it, never a result.

    Returns:
        Tuple of `RowGrams`, `FeatureGrams` and `DeviceSvd`, which together find every spectrum
        once.
    """
    by_svd = [j for j, factor in enumerate(factors) if _uses_svd(factor, method)]
    by_gram = [j for j in range(len(factors)) if j not in by_svd]
    on_rows = _row_stacks({j: factors[j] for j in by_gram}, quantities, sizes)
    found = {name for stack in on_rows for name in stack.wanted}
    on_features = defaultdict(list)
    for j in by_gram:
        i, o = factors[j].widths
        side = {"activation": i, "adjoint": o, "gradient": min(i, o)}
        for quantity in quantities:
            if (j, quantity) not in found:
                on_features[side[quantity]].append((j, quantity))
    return (
        *on_rows,
        *(FeatureGrams(tuple(names)) for names in on_features.values()),
        *(DeviceSvd(((j, quantity),)) for j in by_svd for quantity in quantities),
    )


def _row_stacks(factors, quantities, sizes):
    names, wanted, thin = defaultdict(list), defaultdict(list), defaultdict(list)
    for j, factor in factors.items():
        s = factor.positions
        gradient = "gradient" in quantities and _gradient_on_rows(factor, sizes)
        for name, width in zip(FACTORS, factor.widths, strict=True):
            chosen = name in quantities and prefers_rows(sizes, s, width)
            if chosen or gradient:
                names[s].append((j, name))
                thin[s].append(width if is_thin(sizes, s, width) else 0)
            if chosen:
                wanted[s].append((j, name))
        if gradient:
            wanted[s].append((j, "gradient"))
    return [RowGrams(tuple(names[s]), tuple(wanted[s]), s, tuple(thin[s])) for s in names]


def _gradient_on_rows(factor, sizes):
    return (
        factor.example_gradients is None
        and all(prefers_rows(sizes, factor.positions, width) for width in factor.widths)
        and prefers_rows_for_gradient(sizes, factor.positions, *factor.widths)
    )


def _uses_svd(factor, method):
    # A Gram matrix halves the digits: harmless for float32 data in float64, not for float64 data.
    return method == "svd" or (method == "auto" and factor.activation.dtype == tf.float64)
