"""How things are called where people read them."""

import re

from keras_spectral.summaries import NORMS

SUMMARY_WORDS = {
    "spectral_norm": "largest singular value",
    "frobenius_norm": "Frobenius norm",
    "nuclear_norm": "nuclear norm",
    "effective_rank": "effective rank",
    "stable_rank": "stable rank",
    "participation_ratio": "participation ratio",
    "numerical_rank": "numerical rank",
}

LONG_NAME = 24
"""If some names are longer, paths are cut."""
WEIGHT_MARK = " · "
"""Stands between the names of a layer and of its weight."""
CELL = r"/[a-z_]*_cell$"
"""The part of a path that Keras adds for the cell of a recurrent layer."""

CORRECTIONS = {
    "gradient": ("× n / n_g", "of the group's mean gradient"),
    "adjoint": ("× n / √rows", "root mean square over the group's rows"),
    "activation": ("× 1 / √rows", "root mean square over the group's rows"),
}
"""The factor of a size correction, and what it makes of a norm, by quantity."""


def correction_words(quantity, summary, size_corrected):
    """Return how the size correction of a summary is written, and what it means.

    Args:
        quantity: Quantity.
        summary: Name of a summary, or `None` for singular values.
        size_corrected: Whether norms and singular values are corrected.

    Returns:
        Two texts: one for an axis, and one for a note. Empty for ranks: these have no correction.
    """
    if summary is not None and summary not in NORMS:
        return "", ""
    if not size_corrected:
        return "(raw)", "raw: larger groups have larger values by chance alone"
    factor, meaning = CORRECTIONS[quantity]
    return f"{factor} (size-corrected)", f"size-corrected: {meaning}"


def leading_words(k):
    """Return what to call the `k` leading singular values.

    Args:
        k: Positive integer.

    Returns:
        Text.
    """
    return SUMMARY_WORDS["spectral_norm"] if k == 1 else f"{k} largest singular values"


def series_names(pairs):
    """Return what to call recorded weights, side by side.

    A weight is called by its layer, and by its own name where a layer has several. If names are
    long, a layer is called by the end of its path that no other has, and the cell of a recurrent
    layer by the layer.

    Args:
        pairs: List of `(layer, weight)`.

    Returns:
        List of texts, in order.

    Example:
        >>> series_names([("dense", "kernel"), ("lstm", "kernel"), ("lstm", "recurrent_kernel")])
        ['dense', 'lstm · kernel', 'lstm · recurrent_kernel']
    """
    layers = [layer for layer, _ in pairs]
    several = {layer for layer in layers if layers.count(layer) > 1}
    called = {layer: layer for layer in layers}
    names = [_series_name(called, several, pair) for pair in pairs]
    if max(map(len, names), default=0) <= LONG_NAME:
        return names
    called = _endings(layers)
    return [_series_name(called, several, pair) for pair in pairs]


def _series_name(called, several, pair):
    layer, weight = pair
    return f"{called[layer]}{WEIGHT_MARK}{weight}" if layer in several else called[layer]


def _endings(layers):
    """Return the shortest end of each path that no other path has, a dictionary by path."""
    paths = {layer: re.sub(CELL, "", layer).split("/") for layer in layers}
    endings = [tuple(path[-k:]) for path in paths.values() for k in range(1, len(path) + 1)]
    result = {}
    for layer, path in paths.items():
        sizes = range(1, len(path) + 1)
        unique = [k for k in sizes if endings.count(tuple(path[-k:])) == 1]
        size = min(unique, default=0)
        short = "/".join(path[-size:])
        result[layer] = ("" if size == len(path) else "…/") + short if size else layer
    return result


def shortened(text, width):
    """Return a text of at most `width` characters, its middle replaced by an ellipsis.

    Args:
        text: Any text.
        width: Number of characters, at least 3.

    Returns:
        Text.

    Example:
        >>> shortened("encoder/block_3/attention/query", 16)
        'encoder…on/query'
    """
    if len(text) <= width:
        return text
    head = (width - 1) // 2
    return f"{text[:head]}…{text[len(text) - (width - 1 - head) :]}"


def listed(words):
    """Return words as a list in a sentence.

    Args:
        words: Sequence of text.

    Returns:
        Text.

    Example:
        >>> listed(["HC", "SZ", "BP"])
        'HC, SZ and BP'
    """
    words = [str(word) for word in words]
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def counted(number, word):
    """Return a number with its word, singular or plural.

    Args:
        number: Whole number.
        word: Singular of a word that takes an s.

    Returns:
        Text.

    Example:
        >>> counted(1, "run"), counted(3, "run")
        ('1 run', '3 runs')
    """
    return f"{number:,} {word}{'' if number == 1 else 's'}"
