"""See how each group of samples teaches each layer of a Keras network while it trains.

The public face. Names are loaded when first used, so reading and comparing logs needs no
TensorFlow.
"""

import importlib

from keras_spectral.registration import register_with_keras

__version__ = "0.1.0"

_HOME = {
    "Spectra": "settings",
    "SpectralLog": "log",
    "SpectralLogger": "recorder",
    "SpectralModel": "model",
    "check_layer": "capture.checking",
    "coverage": "capture.coverage",
    "introspect": "introspection",
    "permutations": "permuted_groups",
    "read_log": "log",
    "register_layer": "capture.registry",
    "with_groups": "batches",
}
_AFTER_KERAS = ("capture.", "introspection")
"""Modules before which Keras is imported, so that it knows our model classes: `registration` cannot
import these while Keras is imported by a module that they need."""

_MODULES = ("analysis", "callbacks", "errors", "schedules")

__all__ = sorted([*_HOME, *_MODULES])


def __getattr__(name):
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name in _HOME:
        if _HOME[name].startswith(_AFTER_KERAS):
            importlib.import_module("keras")
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return __all__


register_with_keras()
