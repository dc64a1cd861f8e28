"""Every weight of a model, how it is captured, or why not."""

import math
import warnings

import keras
import pandas as pd
from keras.src.models.functional import Functional  # Keras has no public name for it

from keras_spectral.capture.alignment import NOT_TWICE, aligned_sites
from keras_spectral.capture.keras_layers import losses_kept, own_variables
from keras_spectral.capture.recurrent import is_fused
from keras_spectral.capture.registry import ANY_LAYER, stepped_aside
from keras_spectral.capture.sites import sites

BIAS = "a bias: its gradient is the sum of the rows of the adjoint"

NOT_TRAINED = "not trainable"

LEFT_OUT = "not among the weights that the rule of the layer records"

NOT_ITSELF = "called in a loop, used elsewhere too, or with another leading axis than the example"

NO_EXAMPLE = "called with another leading axis than the example, as all around it"

COLUMNS = (
    "layer",
    "layer_type",
    "weight",
    "shape",
    "parameters",
    "trainable",
    "captured",
    "how",
    "reason",
)


def coverage(model):
    """Return a table of every weight of a model, how it is captured, or why not.

    A model with known inputs (functional or sequential) is traced once, as before training, to find
    out which layers can be watched themselves. Nothing is computed.

    Args:
        model: A built `keras.Model`.

    Returns:
        DataFrame with one row per weight: `layer` (its path), `layer_type`, `weight`, `shape`,
        `parameters`, `trainable`, `captured`, `how` (the rule) and `reason`: why the weight is not
        captured, or why the generic rule captures a layer of a known family.

    Raises:
        ValueError: If the model is not built.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="out")])
        >>> coverage(model)[["layer", "weight", "captured"]].values.tolist()
        [['out', 'kernel', True], ['out', 'bias', False]]
    """
    if not model.built:
        raise ValueError(
            "`model` must be built before its weights can be listed. "
            f"Received: {model.name}. Try `model.build(input_shape)`, or call it on a batch."
        )
    return pd.DataFrame(_rows(_traced(model, sites(model))), columns=list(COLUMNS))


def weights(model):
    """Return the rows of `coverage` as a list of dictionaries, without the trial trace.

    Args:
        model: A built `keras.Model`.
    """
    return _rows((site, None if site.rule is None else site) for site in sites(model))


def _rows(pairs):
    """Return a row for each weight, from pairs that `_traced` returns."""
    return [
        {**_facts(site, variable), **_verdict(site, found, variable)}
        for site, found in pairs
        for variable in own_variables(site.layer)
    ]


def _traced(model, known):
    """Return pairs of a `Site` and the `Site` that training would watch, or `None`."""
    inner = getattr(model, "wrapped_model", model)
    watched = [site for site in known if site.rule is not None]
    inputs = _inputs(inner)
    if inputs is not None:
        with losses_kept(inner), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the table has the reasons
            watched = aligned_sites(watched, lambda x: inner(x, training=True), inputs)
    by_path = {site.path: site for site in watched}
    return [(site, by_path.get(site.path)) for site in known]


def _inputs(model):
    """Return symbolic inputs of a model, or `None` if they are unknown."""
    if isinstance(model, keras.Sequential):
        return model.inputs[0]
    return model.input if isinstance(model, Functional) else None


def _facts(site, variable):
    return {
        "layer": site.path,
        "layer_type": type(site.layer).__name__,
        "weight": variable.name,
        "shape": tuple(variable.shape),
        "parameters": math.prod(variable.shape),
        "trainable": bool(variable.trainable),
    }


def _verdict(site, found, variable):
    if found is not None and _is_watched(found) and _captures(found, variable):
        how = type(found.rule).__name__
        return {"captured": True, "how": how, "reason": _why_generic(site, found)}
    return {"captured": False, "how": "", "reason": _why_not(site, found, variable)}


def _captures(site, variable):
    return any(variable is captured for _, captured in site.weights)


def _is_watched(site):
    """Return whether training updates any weight that a site captures."""
    return any(variable.trainable for _, variable in site.weights)


def _why_generic(site, found):
    """Return why the generic rule captures a layer of a family, and where; else ""."""
    why = stepped_aside(site.layer, site.around) if site.rule is ANY_LAYER else ""
    if found.watched is site.watched:
        return why
    whole = found.watched is site.around[-1]
    place = "the model as a whole" if whole else f"{found.watched.name!r}, around it"
    return f"{why or NOT_ITSELF}; seen at {place}"


def _why_not(site, found, variable):
    if site.rule is None and (variable.trainable or not site.layer.trainable):
        return site.reason
    if not variable.trainable:
        return NOT_TRAINED
    if found is None:
        return NOT_TWICE if any(map(is_fused, site.around)) else NO_EXAMPLE
    return BIAS if variable is getattr(site.layer, "bias", None) else LEFT_OUT
