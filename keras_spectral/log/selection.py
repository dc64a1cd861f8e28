"""Rows of a log by the values of their keys."""

from collections.abc import Iterable

import numpy as np

from keras_spectral.errors import LogError
from keras_spectral.log.schema import ALL_FACTS


def selected(rows, keys, must_occur=True):
    """Return which rows have the given values of keys.

    Args:
        rows: DataFrame of keys and facts.
        keys: Dictionary from key columns to a value or a list of values.
        must_occur: Whether keys and values that do not occur are an error; else nothing has them.

    Returns:
        Boolean array.

    Raises:
        LogError: If a key is not a column, or a value does not occur.
    """
    keep = np.ones(len(rows), dtype=bool)
    for key, wanted in keys.items():
        values = list(wanted) if _are_several(wanted) else [wanted]
        if must_occur:
            _require_occurrence(rows, key, wanted, values)
        keep &= rows[key].isin(values).to_numpy() if key in rows else False
    return keep


def _require_occurrence(rows, key, wanted, values):
    if key not in rows or key in ALL_FACTS:
        columns = [column for column in rows if column not in ALL_FACTS]
        raise LogError(f"A log can be selected by {columns}. Received: {key}={wanted!r}.")
    if [value for value in values if not (rows[key] == value).any()]:
        raise LogError(
            f"`{key}` must occur in the log. Received: {key}={wanted!r}. "
            f"The log holds {_shortened(list(rows[key].unique()))}."
        )


def _are_several(value):
    return isinstance(value, Iterable) and not isinstance(value, str)


def _shortened(values):
    shown = ", ".join(repr(_plain(value)) for value in values[:8])
    return f"[{shown}{', …' if len(values) > 8 else ''}]"


def _plain(value):
    return value.item() if isinstance(value, np.generic) else value
