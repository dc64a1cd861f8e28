"""What is recorded is what trained: captured gradients are compared with the optimizer's.

A loss may depend on a weight in other ways than through the watched output: by a second backward
pass, by operations outside `call`, or because a rule is wrong for a subclass. So at the first
recorded step the captured gradient of the whole batch is compared with the one that the optimizer
received, for every covered weight. The gradient of a weight regulariser, which belongs to no
example, may be part of the latter.
"""

import warnings
from functools import partial

import keras
import numpy as np
import tensorflow as tf

from keras_spectral.capture.calls import unscaled
from keras_spectral.capture.comparison import NEGLIGIBLE, relative_difference, tolerance_of
from keras_spectral.errors import UnsupportedLayerError
from keras_spectral.matrices.factors import WeightMatrices
from keras_spectral.matrices.members import Members


class Verification:
    """Compares one recorded step, and drops layers whose captured gradients are others.

    Args:
        strict: Whether such a layer is an error.

    Attributes:
        dropped: Set of the paths of layers that are not recorded for this reason.
    """

    def __init__(self, strict):
        self._strict = strict
        self._is_due = True
        self.dropped = set()

    def begin(self):
        """Compare the next recorded step, the first of a `fit`."""
        self._is_due = True

    def verified(self, factors, sites, trained, mask, run=lambda job: job()):
        """Return the factors of one step without those of layers that are not what trains.

        Args:
            factors: Dictionary `(layer path, weight name) -> Factors`.
            sites: List of `Site`.
            trained: As in `mismatches`.
            mask: As in `mismatches`.
            run: Function that runs the comparison, a function without arguments.

        Raises:
            UnsupportedLayerError: If there is such a layer, and `strict`.
        """
        if self._is_due:
            found = run(partial(mismatches, sites, factors, trained, mask))
            self._is_due = found is None
            self._drop(
                {path: part for path, part in (found or {}).items() if path not in self.dropped}
            )
        return {name: own for name, own in factors.items() if name[0] not in self.dropped}

    def _drop(self, found):
        if not found:
            return
        parts = (f"{part:.0%} of its norm in layer {path!r}" for path, part in found.items())
        message = (
            "What is recorded must be what trains. Received: gradients that differ from those of "
            f"the loss by {', '.join(parts)}. The loss depends on the weights in another way than "
            "through the output of the layer, as by a second backward pass in `compute_loss`."
        )
        if self._strict:
            raise UnsupportedLayerError(f"{message} Try `strict=False`, or other `layers`.")
        warnings.warn(f"{message} These layers are not recorded.", stacklevel=2)
        self.dropped |= set(found)


def trained_gradients(sites, weights, gradients, scale):
    """Return the gradients of covered weights that the optimizer receives. Runs in the graph.

    Args:
        sites: List of `Site`.
        weights: List of variables.
        gradients: List of their gradients, `None` where there is none.
        scale: Factor by which the loss was multiplied for mixed precision, or `None`.

    Returns:
        Dictionary `(layer path, weight name) -> list of tensors`, one of which the captured
        gradient must equal: the gradient, and the gradient minus that of a weight regulariser.
    """
    by_variable = {id(v): g for v, g in zip(weights, gradients, strict=True) if g is not None}
    found = {}
    for site in sites:
        for name, variable in site.weights:
            gradient = by_variable.get(id(variable))
            if gradient is None:
                continue
            found[site.path, name] = [_unscaled(gradient, scale)]
            penalty = _penalty_gradient(variable)
            if penalty is not None:
                dense = tf.convert_to_tensor(found[site.path, name][0])
                found[site.path, name].append(dense - tf.cast(penalty, dense.dtype))
    return found


@np.errstate(invalid="ignore", over="ignore")
def mismatches(sites, factors, trained, mask):
    """Return the layers whose captured gradient is not the one that trained them.

    Args:
        sites: List of `Site`.
        factors: Dictionary `(layer path, weight name) -> Factors` of one step.
        trained: What `trained_gradients` returned in that step.
        mask: Boolean array `[n, g - 1]`.

    Returns:
        Dictionary from layer paths to relative differences; or `None` if there are NaN or Inf, as
        in the first steps of a scaled loss, and the next step must be compared.
    """
    members, found = Members.of(mask), {}
    for site in sites:
        names = [name for name, _ in site.weights if (site.path, name) in factors]
        pairs = {
            name: (
                WeightMatrices(factors[site.path, name]).gradient(members, 0),
                [_array(gradient) for gradient in trained.get((site.path, name), [])],
            )
            for name in names
        }
        everything = [a for g, several in pairs.values() for a in (g, *several)]
        if not all(np.isfinite(a).all() for a in everything):
            return None
        largest = max((np.linalg.norm(a) for a in everything), default=0.0)
        differences = [
            relative_difference(site, name, own, one, NEGLIGIBLE * largest)
            for name, (own, several) in pairs.items()
            for one in [_nearest(own, several)]
        ]
        if max(differences, default=0.0) > tolerance_of(site):
            found[site.path] = max(differences)
    return found


def _nearest(own, several):
    """Return the gradient whose norm is nearest to that of the captured one, or zeros if none."""
    if not several:
        return np.zeros(own.shape)
    norm = np.linalg.norm(own)
    return min(several, key=lambda gradient: abs(np.linalg.norm(gradient) - norm))


def _unscaled(gradient, scale):
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(
            unscaled(gradient.values, scale), gradient.indices, gradient.dense_shape
        )
    return unscaled(gradient, scale)


def _penalty_gradient(variable):
    """Return the gradient of the weight regulariser of a variable, or `None`."""
    if getattr(variable, "regularizer", None) is None:
        return None
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        value = tf.convert_to_tensor(variable.value)
        tape.watch(value)
        penalty = variable.regularizer(value)
    return tape.gradient(penalty, value)


def _array(gradient):
    return np.asarray(keras.ops.convert_to_numpy(tf.convert_to_tensor(gradient)), dtype=float)
