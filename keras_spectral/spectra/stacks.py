"""The choice of how each spectrum is found: on which side of its matrix, or by a device's SVD.

A step does little: it keeps what it has (`keeping`). All else happens later and elsewhere (`pile`):
what was kept is condensed to small matrices, and their singular values are found for many steps at
once. For small networks the number of operations is the cost, not the arithmetic.
"""

import itertools
import math
from collections import defaultdict

import tensorflow as tf

from keras_spectral.spectra.costs import (
    IN_THE_GRAPH,
    IN_THE_THREAD,
    adds_examples,
    is_thin,
    prefers_rows,
    prefers_rows_for_gradient,
    prefers_subspace,
    prefers_subspace_for_gradient,
)
from keras_spectral.spectra.example_sums import ExampleSums
from keras_spectral.spectra.factor_grams import FactorGrams
from keras_spectral.spectra.factors import FACTORS, is_formed
from keras_spectral.spectra.feature_grams import FeatureGrams
from keras_spectral.spectra.graph_spectra import GraphSpectra
from keras_spectral.spectra.kept_factors import KeptFactor
from keras_spectral.spectra.layout import Layout, Weight
from keras_spectral.spectra.patches import Patches
from keras_spectral.spectra.row_grams import RowGrams
from keras_spectral.spectra.subspace import OVERSAMPLING, Subspaces

MOST_KEPT = 1_500_000
"""Numbers of a factor that is kept for the thread, at most: records take memory."""

MOST_KEPT_OF_PATCHES = 6_000_000
"""The same of convolutions: products with patches cost many times as much in the graph."""


def layout_for(factors, quantities, top_k, method, sizes):
    """Return what is recorded of some weights.

    Args:
        factors: Dictionary `(layer path, weight name) -> Factors`, in the order of the model.
        quantities: As in `stacks_for`.
        top_k: Largest number of singular values kept, or `None`.
        method: As in `stacks_for`.
        sizes: As in `stacks_for`.

    Returns:
        `Layout`.
    """
    weights = tuple(
        Weight(
            *name,
            tuple((q, factor.width(q)) for q in _recorded(factor, quantities)),
            factor.bounded_by_rows,
        )
        for name, factor in factors.items()
    )
    stacks = stacks_for(list(factors.values()), quantities, method, sizes, top_k)
    return Layout(weights, top_k, stacks)


def stacks_for(factors, quantities, method="auto", sizes=(32,), top_k=None):
    """Choose how the spectra of several layers are found.

    Args:
        factors: List of `Factors`, one per weight. Only shapes and types are used.
        quantities: Some of `"activation"`, `"adjoint"`, `"gradient"`.
        method: `"gram"` (roots of eigenvalues of Gram matrices, of rows or of features), `"svd"`
            (`tf.linalg.svd` on the device of the data), `"subspace"` (the largest alone, where that
            is cheaper, else `"gram"`), or `"auto"`: `"svd"` for float64 data, else `"gram"`.
        sizes: Expected examples of the batch and of each group. Only the choice of the cheaper
            side depends on it, never an exact result.
        top_k: Number of singular values that `"subspace"` finds.

    Returns:
        Tuple of `RowGrams`, `FeatureGrams`, `FactorGrams`, `ExampleSums`, `GraphSpectra` and
        `Subspaces`, which together find every spectrum once.
    """
    names = [(j, q) for j, factor in enumerate(factors) for q in _recorded(factor, quantities)]
    in_graph = [(j, q) for j, q in names if _in_graph(factors[j], q, method)]
    columns = (top_k or 0) + OVERSAMPLING if method == "subspace" else 0
    in_part = [
        (j, q)
        for j, q in names
        if columns and (j, q) not in in_graph and _in_part(factors[j], q, sizes, columns)
    ]
    by_gram = [name for name in names if name not in (*in_graph, *in_part)]
    on_rows = _row_stacks(factors, by_gram, sizes)
    found = {name for stack in on_rows for name in stack.wanted}
    on_features, kept_whole, by_example = defaultdict(list), defaultdict(list), []
    for j, quantity in by_gram:
        if (j, quantity) in found:
            continue
        whole = _is_kept_whole(factors[j], quantity, sizes)
        if adds_examples(sizes) and factors[j].adds_up(quantity):
            kept = _kept_factors(factors, [(j, quantity)]) if whole else ()
            by_example.append(ExampleSums(((j, quantity),), kept))
        else:
            chosen = kept_whole if whole else on_features
            chosen[factors[j].width(quantity)].append((j, quantity))
    return (
        *on_rows,
        *(FeatureGrams(tuple(names)) for names in on_features.values()),
        *(FactorGrams(tuple(own), _kept_factors(factors, own)) for own in kept_whole.values()),
        *by_example,
        *(GraphSpectra((name,)) for name in in_graph),
        *([Subspaces(tuple(in_part), columns)] if in_part else []),
    )


def _recorded(factor, quantities):
    return [quantity for quantity in quantities if quantity in factor.recorded]


def _row_stacks(factors, by_gram, sizes):
    names, wanted, thin = defaultdict(list), defaultdict(list), defaultdict(list)
    for j, factor in enumerate(factors):
        gradient = (j, "gradient") in by_gram and _gradient_on_rows(factor, sizes)
        for name in FACTORS:
            if name not in factor.recorded:
                continue
            s, width = _static(factor.positions(name)), factor.width(name)
            chosen = (j, name) in by_gram and prefers_rows(
                sizes, s, width, _product(factor, name, sizes)
            )
            if chosen or gradient:
                names[s].append((j, name))
                thin[s].append(width if is_thin(sizes, s, width) else 0)
            if chosen:
                wanted[s].append((j, name))
        if gradient:
            wanted[_static(factor.positions("gradient"))].append((j, "gradient"))
    return [RowGrams(tuple(names[s]), tuple(wanted[s]), s, tuple(thin[s])) for s in names]


def _gradient_on_rows(factor, sizes):
    s, widths = _static(factor.positions("gradient")), factor.gradient_shape
    product = _product(factor, "gradient", sizes)
    return (
        factor.is_product
        and not hasattr(factor.activation, "spectra")
        and all(prefers_rows(sizes, s, width, product) for width in widths)
        and prefers_rows_for_gradient(sizes, s, *widths, product)
    )


def _product(factor, quantity, sizes):
    return IN_THE_THREAD if _is_kept_whole(factor, quantity, sizes) else IN_THE_GRAPH


def _is_kept_whole(factor, quantity, sizes):
    """Tell whether a matrix of the side of the features is left to the thread."""
    if tf.config.list_physical_devices("GPU"):
        return False  # it multiplies faster than factors could be moved
    if quantity == "gradient":
        own = factor.group_gradients is None and factor.example_gradients is None
        return own and all(_fits(factor, name, sizes) for name in FACTORS)
    return _fits(factor, quantity, sizes)


def _fits(factor, name, sizes):
    part, s = getattr(factor, name), _static(factor.positions(name))
    if s is None or not (is_formed(part) or isinstance(part, Patches)):
        return False
    convolves = any(isinstance(getattr(factor, of), Patches) for of in FACTORS)
    most = MOST_KEPT_OF_PATCHES if convolves else MOST_KEPT
    tensors = [part] if is_formed(part) else part.inputs
    return sizes[0] * sum(math.prod(x.shape[1:]) for x in tensors) <= most


def _kept_factors(factors, names):
    both = [[(j, name) for name in (FACTORS if q == "gradient" else (q,))] for j, q in names]
    kept = []
    for j, name in dict.fromkeys(itertools.chain.from_iterable(both)):
        part = getattr(factors[j], name)
        patches = not is_formed(part)
        calls, unfolding = (len(part.inputs), part.unfolding) if patches else (1, None)
        kept.append(KeptFactor(j, name, calls, unfolding))
    return tuple(kept)


def _in_part(factor, quantity, sizes, columns):
    """Tell whether a subspace of some columns is found, in place of all singular values."""
    product = _product(factor, quantity, sizes)
    if quantity == "gradient":
        s = _static(factor.positions("adjoint")) if factor.is_product else None
        return prefers_subspace_for_gradient(sizes, s, *factor.gradient_shape, columns, product)
    part = getattr(factor, quantity)
    grouped = isinstance(part, Patches) and part.blocks > 1
    s = _static(factor.positions(quantity))
    return not grouped and prefers_subspace(sizes, s, factor.width(quantity), columns, product)


def _static(positions):
    return positions if isinstance(positions, int) else None


def _in_graph(factor, quantity, method):
    known = hasattr(getattr(factor, quantity, None), "spectra")
    # A Gram matrix halves the digits: harmless for float32 data in float64, not for float64 data.
    parts = (
        factor.activation,
        factor.adjoint,
        factor.group_gradients,
        factor.example_gradients,
    )
    is_float64 = any(part is not None and part.dtype == tf.float64 for part in parts)
    return known or method == "svd" or (method == "auto" and is_float64)
