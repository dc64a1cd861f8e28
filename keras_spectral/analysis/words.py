"""How things are called where people read them."""

import posixpath

from keras_spectral.spectra.summaries import NORMS

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
"""Longer names leave out the path that they share."""

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
    long, the leading part of the path that all of them share is left out.

    Args:
        pairs: List of `(layer, weight)`.

    Returns:
        List of texts, in order.

    Example:
        >>> series_names([("dense", "kernel"), ("lstm", "kernel"), ("lstm", "recurrent_kernel")])
        ['dense', 'lstm · kernel', 'lstm · recurrent_kernel']
    """
    layers = [layer for layer, _ in pairs]
    names = [f"{layer} · {weight}" if layers.count(layer) > 1 else layer for layer, weight in pairs]
    shared = posixpath.commonpath(layers) if len(set(layers)) > 1 else ""
    if not shared or max(map(len, names)) <= LONG_NAME:
        return names
    return [f"…{name[len(shared) :]}" if name != shared else name for name in names]


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
