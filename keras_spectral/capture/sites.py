"""The layers of a model, their paths, and for each the rule or the reason why there is none."""

import dataclasses
import warnings
from dataclasses import dataclass
from typing import Any

from keras_spectral.capture.keras_layers import numbered, own_variables
from keras_spectral.capture.registry import rule_for
from keras_spectral.errors import SettingsError, UnsupportedLayerError


@dataclass(frozen=True, eq=False)
class Site:
    """One layer of a model.

    Attributes:
        path: Names of the layers around it and its own, joined by `/`; unique in the model.
        layer: The Keras layer.
        rule: The rule that captures it, or `None`.
        reason: Why it is not captured, or "".
        watched: The layer whose calls are watched: the layer itself or one around it.
        around: Tuple of the layers around it, the nearest first, the model last.
    """

    path: str
    layer: Any
    rule: Any
    reason: str
    watched: Any
    around: tuple = ()

    @property
    def weights(self):
        """The captured weights, as pairs `(name, variable)`."""
        return [] if self.rule is None else self.rule.weights(self.layer)


def sites(model):
    """Return every layer of a model that has weights of its own.

    Args:
        model: A built Keras model.

    Returns:
        List of `Site`, in the order of the model. A layer used several times is listed once, at
        its first path.
    """
    root = getattr(model, "wrapped_model", model)
    found = [
        Site(path, layer, *_rule_or_reason(layer, around), (*around, root))
        for path, layer, around in _paths(root)
        if own_variables(layer)
    ]
    paths = numbered(site.path for site in found)
    return [dataclasses.replace(site, path=path) for site, path in zip(found, paths, strict=True)]


def watched_sites(model, settings):
    """Return the sites to record, and warn of layers that cannot be recorded.

    Args:
        model: A built Keras model.
        settings: `Spectra`.

    Returns:
        List of `Site`, each with a rule.

    Raises:
        SettingsError: If a name or pattern in `settings.layers` matches no layer.
        UnsupportedLayerError: If `settings.strict` and a trainable layer cannot be captured.
    """
    everywhere = require_known_layers(model, settings)
    selected = [site for site in everywhere if settings.selects(site.path, site.layer)]
    missed = [site for site in selected if site.rule is None and _has_own_trainable(site.layer)]
    if missed:
        _report_missed(missed, settings.strict)
    return [site for site in selected if site.rule is not None]


def require_known_layers(model, settings):
    """Raise if the settings name layers that a model does not have.

    Args:
        model: A built Keras model.
        settings: `Spectra`.

    Returns:
        List of all its sites.

    Raises:
        SettingsError: If a name or pattern in `settings.layers` matches no layer.
    """
    everywhere = sites(model)
    if settings.layers is None or callable(settings.layers):
        return everywhere
    for pattern in settings.layers:
        one = type(settings)(layers=pattern)
        if not any(one.selects(site.path, site.layer) for site in everywhere):
            raise SettingsError(
                "`layers` must name layers with weights. "
                f"Received: layers={settings.layers}, of which {pattern!r} fits none. "
                f"The model has {[site.path for site in everywhere]}."
            )
    return everywhere


def _has_own_trainable(layer):
    return any(variable.trainable for variable in own_variables(layer))


def _rule_or_reason(layer, around):
    if not layer.trainable:
        return None, "frozen: trainable=False", layer
    rule, host = rule_for(layer, around)
    obstacle = rule.obstacle(layer)
    return (None, obstacle, layer) if obstacle else (rule, "", host)


def _paths(model, around=(), seen=None):
    seen = set() if seen is None else seen
    for layer in model._layers:  # sublayers of any layer; Keras has no public name for them
        if id(layer) in seen or not hasattr(layer, "_layers"):
            continue
        seen.add(id(layer))
        yield "/".join(part.name for part in (*around[::-1], layer)), layer, around
        yield from _paths(layer, (layer, *around), seen)


def _report_missed(missed, strict):
    reasons = "; ".join(f"{site.path}: {site.reason}" for site in missed)
    if strict:
        raise UnsupportedLayerError(
            "With `strict=True` every trainable layer must be captured. "
            f"Received a model with {len(missed)} that cannot be: {reasons}. "
            "Try `strict=False`, or choose others with `Spectra(layers=…)`."
        )
    warnings.warn(
        f"The spectra of {len(missed)} layers are not recorded ({reasons}). "
        "`keras_spectral.coverage(model)` lists every weight.",
        stacklevel=2,
    )
