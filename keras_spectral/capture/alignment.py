"""Where each layer is watched so that its rows belong to examples, found out before training.

In a graph the batch axis has no size, so nothing tells whether the leading axis of a layer's input
is the example. A trial trace with a batch of a telling size does; it runs nothing. A layer that
cannot be watched itself, because it is called in a loop (the cell of a recurrent layer) or sees
time folded into the batch, is watched at the nearest layer around it, by the generic rule.
"""

import dataclasses
import warnings

import keras
import tensorflow as tf

from keras_spectral.capture.registry import ANY_LAYER
from keras_spectral.capture.tape import WatchedForward

TRIAL_BATCH = 7
"""A batch size that no other axis is likely to have."""

KNOWN = {TRIAL_BATCH, None}


def aligned_sites(sites, forward, x):
    """Return the sites whose rows can be assigned to examples, warning about the others.

    Args:
        sites: List of `Site`, each with a rule.
        forward: Function that runs the model on `x`.
        x: Structure of tensors, one batch.

    Returns:
        List of `Site`, with `watched` set where it must be. If the model cannot be traced with
        another batch size, the sites as they are.
    """
    try:
        astray = _astray(sites, forward, x)
        while any(_outwards(site) for site in astray):
            moved = {id(site): _outwards(site) or site for site in astray}
            sites = [moved.get(id(site), site) for site in sites]
            astray = _astray(sites, forward, x)
    except Exception:
        return sites
    for site in astray:
        warnings.warn(
            f"The spectra of layer {site.path!r} are not recorded: its leading axis is not the "
            "example (is time folded into the batch?), so its rows belong to no group.",
            stacklevel=2,
        )
    return [site for site in sites if site not in astray]


def _outwards(site):
    """Return a site with the same weights, watched one layer further out, or `None`."""
    inside = 0 if site.watched is site.layer else site.around.index(site.watched) + 1
    if inside == len(site.around):
        return None
    return dataclasses.replace(site, rule=ANY_LAYER, watched=site.around[inside])


def _astray(sites, forward, x):
    """Return the sites whose calls cannot all be seen with the example first."""
    found: list = []

    def trial(inputs):
        watched = WatchedForward(sites)
        with watched():
            forward(inputs)
        found.extend(watched.hidden)
        found.extend(site for site, call in watched.calls if not _leading(call) <= KNOWN)
        return tf.constant(0)

    tf.function(trial).get_concrete_function(keras.tree.map_structure(_trial_spec, x))
    return found


def _leading(call):
    return {output.shape[0] if output.shape.rank else 0 for output in call.outputs}


def _trial_spec(tensor):
    return None if tensor is None else tf.TensorSpec([TRIAL_BATCH, *tensor.shape[1:]], tensor.dtype)
