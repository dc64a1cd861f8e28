"""Every weight of a model, how it is captured, or why not."""

import math

import pandas as pd

from keras_spectral.capture.rule import own_variables
from keras_spectral.capture.sites import sites

BIAS = "a vector: its gradient is the sum of the rows of the layer's adjoint"

NOT_TRAINED = "not trainable"


def coverage(model):
    """Return a table of every weight of a model, how it is captured, or why not.

    Args:
        model: A built `keras.Model`.

    Returns:
        DataFrame with one row per weight: `layer` (its path), `layer_type`, `weight`, `shape`,
        `parameters`, `trainable`, `captured`, `how` (the rule) and `reason` (why not).

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
    columns = ["layer", "layer_type", "weight", "shape", "parameters", "trainable"]
    return pd.DataFrame(weights(model), columns=[*columns, "captured", "how", "reason"])


def weights(model):
    """Return the rows of `coverage` as a list of dictionaries.

    Args:
        model: A built `keras.Model`.
    """
    return [
        {**_facts(site, variable), **_verdict(site, variable)}
        for site in sites(model)
        for variable in own_variables(site.layer)
    ]


def _facts(site, variable):
    return {
        "layer": site.path,
        "layer_type": type(site.layer).__name__,
        "weight": variable.name,
        "shape": tuple(variable.shape),
        "parameters": math.prod(variable.shape),
        "trainable": bool(variable.trainable),
    }


def _verdict(site, variable):
    if site.rule is None:
        return {"captured": False, "how": "", "reason": site.reason}
    if any(variable is captured for _, captured in site.weights):
        return {"captured": True, "how": type(site.rule).__name__, "reason": ""}
    return {"captured": False, "how": "", "reason": BIAS if variable.trainable else NOT_TRAINED}
