"""Provenance of a log: versions, fingerprints of model and data, settings."""

import hashlib
import json
import platform

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

import keras_spectral
from keras_spectral.capture.coverage import weights
from keras_spectral.errors import SettingsError

PACKAGES = (keras_spectral, tf, keras, np, pd)
FINGERPRINT_BYTES = 1 << 20
"""Bytes of each array that are hashed, in evenly spaced rows: limits the time for large arrays."""


def provenance(model, settings, x, y, membership):
    """Return the provenance of a log that is about to be recorded.

    Args:
        model: The model, before training.
        settings: `Spectra`.
        x: Inputs, as passed to `fit`.
        y: Targets, as passed to `fit`.
        membership: `Membership` of the examples.

    Returns:
        Dictionary that JSON can hold: `versions`, `python`, `platform`, `model`, `data`,
        `settings`, `groups`, `permutations`, `permuted_within`, `groups_are_target`,
        `coverage`.
    """
    return {
        "versions": {package.__name__: package.__version__ for package in PACKAGES},
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "model": {"name": model.name, "parameters": _parameters(model)},
        "data": {"x": _fingerprints(x), "y": _fingerprints(y)},
        "settings": _settings(settings),
        "groups": {name: int(n) for name, n in _sizes(membership).items()},
        "permutations": membership.n_permutations,
        "permuted_within": membership.permuted_within_strata,
        "groups_are_target": groups_are_target(membership, y),
        "coverage": _coverage(model),
    }


def continued(before, new):
    """Return the provenance of a log to which another training is appended.

    Args:
        before: Provenance of the log so far, or an empty dictionary.
        new: Provenance of the training that is appended.

    Returns:
        Dictionary: the new entries, with the groups, the target groups and the largest number of
        permutations of both.
    """
    merged = dict(new)
    merged["groups"] = before.get("groups", {}) | new["groups"]
    known = [*before.get("groups_are_target", []), *new["groups_are_target"]]
    merged["groups_are_target"] = list(dict.fromkeys(known))
    merged["permutations"] = max(before.get("permutations", 0), new["permutations"])
    strata = (before.get("permuted_within", False), new["permuted_within"])
    merged["permuted_within"] = any(strata)
    return before | merged


def groups_are_target(membership, y):
    """Return the real groups that are exactly the classes of the target.

    Args:
        membership: `Membership` of the training examples.
        y: Targets: class numbers `[n]` or `[n, 1]`, or one-hot rows `[n, c]`.

    Returns:
        List of group names; empty if none is a class, or `y` is not a single array.
    """
    if not len(membership) or not hasattr(y, "shape") or len(y) != len(membership):
        return []
    target = np.asarray(y).reshape(len(y), -1)
    classes = target[:, 0] if target.shape[1] == 1 else target.argmax(axis=1)
    values = np.unique(classes)
    if len(values) > 20:
        return []
    return [
        name
        for name, column, permutation in zip(
            membership.names, membership.mask.T, membership.permutation, strict=True
        )
        if permutation == 0 and any(np.array_equal(column, classes == v) for v in values)
    ]


def _sizes(membership):
    sizes = membership.mask.sum(axis=0)[membership.permutation == 0]
    return dict(zip(membership.real_names, sizes, strict=True))


def _parameters(model):
    return int(model.count_params()) if model.built else None


def _coverage(model):
    rows = weights(model) if model.built else []
    return [{name: str(fact) for name, fact in row.items()} for row in rows]


def _settings(settings):
    try:
        return settings.get_config()
    except SettingsError:
        return repr(settings)


def _fingerprints(data):
    leaves = [leaf for leaf in keras.tree.flatten(data) if hasattr(leaf, "shape")]
    return [_fingerprint(np.asarray(leaf)) for leaf in leaves]


def _fingerprint(array):
    stride = max(1, array.nbytes // FINGERPRINT_BYTES)
    digest = hashlib.sha256(np.ascontiguousarray(array[::stride]).tobytes())
    facts = json.dumps([list(array.shape), str(array.dtype), stride])
    return {
        "shape": list(array.shape),
        "dtype": str(array.dtype),
        "sha256": hashlib.sha256(facts.encode() + digest.digest()).hexdigest(),
    }
