"""Which layers see their rows example by example, found out before anything is recorded.

In a graph the batch axis has no size, so nothing tells whether the leading axis of a layer's input
is the example. A trial trace with a batch of a telling size does; it runs nothing.
"""

import warnings

import keras
import tensorflow as tf

from keras_spectral.capture.tape import WatchedForward

TRIAL_BATCH = 7
"""A batch size that no other axis is likely to have."""


def aligned_sites(sites, forward, x):
    """Return the sites whose rows can be assigned to examples, warning about the others.

    Args:
        sites: List of `Site`, each with a rule.
        forward: Function that runs the model on `x`.
        x: Structure of tensors, one batch.

    Returns:
        List of `Site`. If the model cannot be traced with another batch size, all of them.
    """
    found: dict = {}

    def trial(inputs):
        watched = WatchedForward(sites)
        with watched():
            forward(inputs)
        for site, call in watched.calls:
            found.setdefault(site, set()).add(call.pre_activation.shape[0])
        return tf.constant(0)

    try:
        tf.function(trial).get_concrete_function(keras.tree.map_structure(_trial_spec, x))
    except Exception:
        return sites
    return [site for site in sites if _is_aligned(site, found.get(site, {TRIAL_BATCH}))]


def _trial_spec(tensor):
    return None if tensor is None else tf.TensorSpec([TRIAL_BATCH, *tensor.shape[1:]], tensor.dtype)


def _is_aligned(site, leading):
    if leading <= {TRIAL_BATCH, None}:
        return True
    warnings.warn(
        f"The spectra of layer {site.path!r} are not recorded: its leading axis is not the example "
        "(is time folded into the batch?), so its rows belong to no group.",
        stacklevel=2,
    )
    return False
