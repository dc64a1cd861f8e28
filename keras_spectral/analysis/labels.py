"""Texts of figures and reports: names of summaries, weights and size corrections."""

import re

from keras_spectral.summaries import NORMS

SUMMARY_LABELS = {
    "spectral_norm": "largest singular value",
    "frobenius_norm": "Frobenius norm",
    "nuclear_norm": "nuclear norm",
    "effective_rank": "effective rank",
    "stable_rank": "stable rank",
    "participation_ratio": "participation ratio",
    "numerical_rank": "numerical rank",
}

LONG_NAME = 24
"""Number of characters above which layer paths are shortened."""
WEIGHT_MARK = " · "
"""Separates the name of a layer from that of its weight."""
CELL = r"/[a-z_]*_cell$"
"""The part of a path that Keras adds for the cell of a recurrent layer."""

CORRECTIONS = {
    "gradient": ("× n / n_g", "of the group's mean gradient"),
    "adjoint": ("× n / √rows", "root mean square over the group's rows"),
    "activation": ("× 1 / √rows", "root mean square over the group's rows"),
}
"""By quantity: the factor of the size correction, and what a corrected norm is."""


def correction_labels(quantity, summary, size_corrected):
    """Return the text of the size correction of a summary, for an axis and for a note.

    Args:
        quantity: Quantity.
        summary: Name of a summary, or `None` for singular values.
        size_corrected: Whether norms and singular values are corrected.

    Returns:
        The tuple `(axis text, note)`; both are empty for ranks, which have no correction.
    """
    if summary is not None and summary not in NORMS:
        return "", ""
    if not size_corrected:
        return "(raw)", "raw: larger groups have larger values by chance alone"
    factor, meaning = CORRECTIONS[quantity]
    return f"{factor} (size-corrected)", f"size-corrected: {meaning}"


def leading_label(k):
    """Return the label of the `k` leading singular values.

    Args:
        k: Positive integer.

    Returns:
        Text.
    """
    return SUMMARY_LABELS["spectral_norm"] if k == 1 else f"{k} largest singular values"


def series_names(pairs):
    """Return labels of recorded weights that differ from each other.

    A label is the layer's path, followed by the weight's name where a layer has several weights. If
    labels are long, a path is shortened to the shortest end that no other path has, and the cell of
    a recurrent layer is left out.

    Args:
        pairs: List of `(layer, weight)`.

    Returns:
        List of labels, in order.

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


def listed(items):
    """Return items as an enumeration in a sentence.

    Args:
        items: Sequence of text.

    Returns:
        Text.

    Example:
        >>> listed(["HC", "SZ", "BP"])
        'HC, SZ and BP'
    """
    items = [str(item) for item in items]
    return " and ".join([", ".join(items[:-1]), items[-1]] if len(items) > 1 else items)


def counted(number, noun):
    """Return a number with its noun in the singular or plural.

    Args:
        number: Whole number.
        noun: Singular of a noun whose plural ends in s.

    Returns:
        Text.

    Example:
        >>> counted(1, "run"), counted(3, "run")
        ('1 run', '3 runs')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
