"""Where each layer is watched so that its rows belong to examples; decided before training.

In a graph the batch axis has no static size, so it is unknown whether the leading axis of a layer's
output is the example. A trial trace with a batch of a unique size shows it; nothing is computed. An
axis whose size is unknown even then, as after a selection of tokens, is taken not to be the
example. Some layers cannot be watched themselves: one that is called in a loop (the cell of a
recurrent layer), one that has time folded into the batch axis, and one whose weight is also used
outside its calls (a head tied to an embedding by hand). The generic rule watches the nearest layer
around them that can be watched, in the last resort the model as a whole.
"""

import contextlib
import dataclasses
import warnings
from collections import defaultdict

import keras
import tensorflow as tf

from keras_spectral.capture.keras_layers import attributes, name_of_call
from keras_spectral.capture.recurrent import is_fused
from keras_spectral.capture.registry import ANY_LAYER
from keras_spectral.capture.watching import WatchedForward
from keras_spectral.errors import LayerRuleError, UnsupportedLayerError

TRIAL_BATCH = 251
"""A prime, as a batch size that no other axis is likely to have."""

NO_EXAMPLES = (
    "nothing around it has outputs that lead with the example, so its rows belong to no group"
)

NOT_TWICE = (
    "seen from outside it runs a fused kernel of a GPU, which cannot be differentiated for each "
    "group; with `use_cudnn=False` it can"
)


def aligned_sites(sites, forward, x, strict=False):
    """Return the sites whose rows can be assigned to examples, warning about the others.

    Args:
        sites: List of `Site`, each with a rule.
        forward: Function that runs the model on `x`.
        x: Structure of tensors, one batch.
        strict: Whether a site that cannot be assigned is an error.

    Returns:
        List of `Site`, with `watched` set where it must be.

    Raises:
        UnsupportedLayerError: If `strict` and there is one.
        LayerRuleError: If a registered function does not fit its layer.
    """
    # A stateful layer accepts only its own batch size.
    for size in (TRIAL_BATCH, None):
        try:
            sites, astray = _moved_outwards(sites, forward, x, size)
            break
        except LayerRuleError:
            raise
        except Exception:
            if _can_be_traced(forward, x, size):
                raise
    else:  # the model cannot be traced: sizes are checked when it runs eagerly
        return sites
    left_out = {site: NO_EXAMPLES for site in astray}
    left_out |= {site: NOT_TWICE for site in sites if _runs_a_fused_kernel(site)}
    for site, why in left_out.items():
        message = f"The spectra of layer {site.path!r} are not recorded: {why}."
        if strict:
            raise UnsupportedLayerError(f"{message} Try `strict=False`, or other `layers`.")
        warnings.warn(message, stacklevel=2)
    return [site for site in sites if site not in left_out]


def _can_be_traced(forward, x, size):
    """Return whether the model can be traced with such a batch when it is not watched."""
    try:
        tf.function(forward, autograph=False).get_concrete_function(_trial_specs(x, size))
    except Exception:  # a model may raise anything
        return False
    return True


def _runs_a_fused_kernel(site):
    """Return whether the generic rule would differentiate a fused kernel once per group."""
    return site.rule is ANY_LAYER and any(map(is_fused, site.watched._flatten_layers()))


def _moved_outwards(sites, forward, x, size):
    """Return the sites, each watched at the innermost layer possible, and those without any."""
    astray = _astray(sites, forward, x, size)
    while any(_outwards(site) for site in astray):
        moved = {id(site): _outwards(site) or site for site in astray}
        sites = [moved.get(id(site), site) for site in sites]
        astray = _astray(sites, forward, x, size)
    return sites, astray


def _outwards(site):
    """Return a site with the same weights, watched one layer further out, or `None`."""
    inside = 0 if site.watched is site.layer else site.around.index(site.watched) + 1
    if inside == len(site.around):
        return None
    return dataclasses.replace(site, rule=ANY_LAYER, watched=site.around[inside])


def _astray(sites, forward, x, size):
    """Return the sites that cannot be watched where they are.

    Their calls are inside a loop, do not lead with the example, or are not the only use of a
    weight.

    Args:
        sites: List of `Site`.
        forward: Function that runs the model.
        x: Structure of tensors, one batch.
        size: Examples in the trial, or `None` for as many as `x` has.
    """
    found: list = []

    def trial(inputs):
        watched = WatchedForward(sites)
        with watched(), _spans({id(site.watched): site.watched for site in sites}) as spans:
            outputs = forward(inputs)
        found.extend(watched.hidden)
        leading = {keras.tree.flatten(inputs)[0].shape[0]}
        found.extend(site for site, call in watched.calls if call.leading - leading)
        found.extend(site for site in sites if _is_used_elsewhere(site, spans, outputs))
        return tf.constant(0)

    tf.function(trial, autograph=False).get_concrete_function(_trial_specs(x, size))
    return found


@contextlib.contextmanager
def _spans(layers):
    """Record which operations each layer adds to the graph: `{id of layer: [range, …]}`."""
    spans = defaultdict(list)

    def noting(key, call):
        def noting_call(*args, **kwargs):
            begin = _n_operations()
            outputs = call(*args, **kwargs)
            spans[key].append(range(begin, _n_operations()))
            return outputs

        return noting_call

    with contextlib.ExitStack() as stack:
        for key, layer in layers.items():
            called = name_of_call(layer)
            noted = noting(key, getattr(layer, called))
            stack.enter_context(attributes(layer, **{called: noted}))
        yield spans


def _n_operations():
    return len(tf.compat.v1.get_default_graph().get_operations())


def _is_used_elsewhere(site, spans, outputs):
    """Return whether the outputs depend on a weight outside the calls of the watched layer."""
    graph = tf.compat.v1.get_default_graph()
    number = {operation: k for k, operation in enumerate(graph.get_operations())}
    ends = {y.op for y in keras.tree.flatten(outputs) if tf.is_tensor(y)}
    handles = [variable.value.handle for _, variable in site.weights]
    within = spans[id(site.watched)]
    return any(
        _reaches(user, ends)
        for outside, inside in getattr(graph, "captures", ())
        if any(outside is handle for handle in handles)
        for user in inside.consumers()
        if not any(number[user] in span for span in within)
    )


def _reaches(operation, ends):
    seen, waiting = set(), [operation]
    while waiting:
        operation = waiting.pop()
        if operation in ends:
            return True
        for user in (user for output in operation.outputs for user in output.consumers()):
            if user not in seen:
                seen.add(user)
                waiting.append(user)
    return False


def _trial_specs(x, size):
    return keras.tree.map_structure(lambda tensor: _trial_spec(tensor, size), x)


def _trial_spec(tensor, size):
    if tensor is None:
        return None
    return tf.TensorSpec([size or tensor.shape[0], *tensor.shape[1:]], tensor.dtype)
