"""What a step keeps of each matrix. Runs in the graph, where each operation has its price."""

import tensorflow as tf

from keras_spectral.spectra.bases import kept_of_subspaces
from keras_spectral.spectra.example_sums import ExampleSums
from keras_spectral.spectra.factor_grams import FactorGrams
from keras_spectral.spectra.factors import is_formed, rows_of
from keras_spectral.spectra.feature_grams import FeatureGrams
from keras_spectral.spectra.graph_spectra import GraphSpectra
from keras_spectral.spectra.matrices import group_matrix, smaller_gram, smaller_grams
from keras_spectral.spectra.row_grams import RowGrams
from keras_spectral.spectra.rows import GroupRows, group_rows
from keras_spectral.spectra.subspace import Subspaces


def kept_by(stacks, factors, mask, n, bases=None):
    """Return what a step keeps for each stack.

    Args:
        stacks: What `stacks.stacks_for` chose.
        factors: List of `Factors`, one per weight.
        mask: Boolean (or 0/1) tensor `[n, g]`, or `None`.
        n: Scalar integer tensor, the number of examples.
        bases: `Bases` that `Subspaces` among the stacks begin with, and change.

    Returns:
        List of tensors, those of the first stack first; each stack says what they are.
    """
    rows = None if mask is None or mask.shape[1] == 0 else group_rows(tf.cast(mask, tf.bool))
    kept = {
        RowGrams: _rows,
        FactorGrams: _factors,
        FeatureGrams: _grams,
        GraphSpectra: _spectra,
    }
    found = []
    for stack in stacks:
        with _after(found):
            if isinstance(stack, ExampleSums) and stack.factors:
                found += _factors(stack, factors, rows)
            elif isinstance(stack, ExampleSums):
                found.append(_example_parts(stack, factors, n))
            elif isinstance(stack, Subspaces):
                members = _members(None if rows is None else mask, n)
                found.append(kept_of_subspaces(stack, factors, members, rows, bases))
            else:
                found += kept[type(stack)](stack, factors, rows)
    return found


def _after(found):
    """One after the other: what all of them need on the way would take much memory at once."""
    return tf.control_dependencies(found[-1:])


def _members(mask, n):
    everybody = tf.ones(tf.stack([n, 1]), tf.bool)
    return everybody if mask is None else tf.concat([everybody, tf.cast(mask, tf.bool)], axis=1)


def _rows(stack, factors, _):
    return [rows_of(getattr(factors[j], name)) for j, name in stack.factors]


def _factors(stack, factors, _):
    parts = [getattr(factors[kept.weight], kept.name) for kept in stack.factors]
    return [x for part in parts for x in ([part] if is_formed(part) else part.inputs)]


def _grams(stack, factors, rows):
    found = []
    for j, quantity in stack.wanted:
        with _after(found):
            found.append(smaller_grams(factors[j], quantity, rows))
    return [tf.stack(found)]


def _example_parts(stack, factors, n):
    ((j, quantity),) = stack.wanted
    examples = tf.range(n)
    each = GroupRows(examples[:, None], tf.ones_like(examples), tf.constant(True))
    part = group_matrix if stack.is_gradient else smaller_gram
    return part(factors[j], quantity, each)


def _spectra(stack, factors, rows):
    ((j, quantity),) = stack.wanted
    whole = _norm_and_sigma(factors[j], quantity, None)
    if rows is None:
        return [whole]
    groups = _norm_and_sigma(factors[j], quantity, rows)
    missing = tf.shape(whole)[1] - tf.shape(groups)[1]
    return [tf.concat([whole, tf.pad(groups, [[0, 0], [0, missing]])], axis=0)]


def _norm_and_sigma(factor, quantity, rows):
    spectra = getattr(getattr(factor, quantity, None), "spectra", None)
    if spectra is not None:
        return spectra(rows)
    matrix = group_matrix(factor, quantity, rows)
    finite = tf.reduce_all(tf.math.is_finite(matrix), axis=[1, 2])[:, None]
    safe = tf.where(finite[..., None], matrix, 0.0)
    sigma = tf.linalg.svd(safe, compute_uv=False)
    norm = tf.sqrt(tf.reduce_sum(safe * safe, axis=[1, 2]))[:, None]
    nan = tf.constant(float("nan"), tf.float64)
    return tf.where(finite, tf.concat([norm, sigma], axis=1), nan)
