"""Reading a table of subjects from a CSV or TSV file, with ids as text."""

import csv
import gzip
import re
import warnings
import zlib
from collections import Counter
from difflib import get_close_matches
from pathlib import Path

import pandas as pd

from keras_spectral.errors import DataError

SHOWN = 5
"""Largest number of names or ids in a message."""
UNNAMED = "Unnamed: "
"""Prefix of the names that columns without a name get, as in pandas."""
FREESURFER = re.compile(
    r"Measure:\S+|[lr]h\.\S+\."
    r"(area|volume|thickness|thicknessstd|meancurv|gauscurv|foldind|curvind)"
)
"""Name of the id column in tables that `asegstats2table` and `aparcstats2table` write."""


def feature_table(path, id_column):
    """Read a table of features, whose columns need not be numeric yet.

    Args:
        path: UTF-8 file separated by commas, tabs or semicolons, with one header line; it may be
            compressed (`.gz`).
        id_column: Name of the column with the ids; `""` is the first column. Where no column has
            the name, the ids are in a first column that has no name, or that `asegstats2table` or
            `aparcstats2table` of FreeSurfer wrote: there the last part of a path is the id.

    Returns:
        DataFrame indexed by id: text, leading zeros kept, blanks around it removed.

    Raises:
        DataError: If the file cannot be read, or its ids are absent, incomplete or not unique.
    """
    return _by_id(Path(path), id_column, low_memory=False)


def label_table(path, id_column):
    """Read a table of labels as text; the text "None" is a label, too.

    Args:
        path: As for `feature_table`.
        id_column: As for `feature_table`.

    Returns:
        DataFrame of text indexed by id. An empty field is missing.

    Raises:
        DataError: As `feature_table` does.
    """
    table = _by_id(Path(path), id_column, dtype=str, keep_default_na=False, na_values=[""])
    table = table.apply(lambda column: column.str.strip())
    return table.mask(table == "")


def shown(items):
    """Return the first few of many names, for a message.

    Args:
        items: Names or ids.

    Returns:
        One line of text.

    Example:
        >>> shown(range(7))
        '0, 1, 2, 3, 4 and 2 more'
    """
    items = [str(item) for item in items]
    more = f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return ", ".join(items[:SHOWN]) + more


def counted(items, noun):
    """Return the number of items and the first few of them, for a message.

    Args:
        items: Names or ids.
        noun: Noun for the items, in the singular.

    Returns:
        One line of text.

    Example:
        >>> counted(["x", "y"], "feature")
        '2 features (x, y)'
    """
    items = list(items)
    return f"{len(items)} {noun}{'' if len(items) == 1 else 's'} ({shown(items)})"


def suggestion(name, names):
    """Return a hint at the name that was probably meant.

    Args:
        name: A name that does not exist.
        names: The existing names.

    Returns:
        A sentence that begins with a blank, or `""` if no name is close.

    Example:
        >>> suggestion("id", ["Id", "Class"])
        " Did you mean 'Id'?"
    """
    known = {str(other).lower(): other for other in names}
    close = get_close_matches(str(name).lower(), known, n=1)
    return f" Did you mean {known[close[0]]!r}?" if close else ""


def _by_id(path, id_column, **options):
    if not path.is_file():
        raise DataError(f"Every table must be a file. Received: {path}, which is not a file.")
    try:
        separator, names = _header(path)
        id_name = _id_name(path, names, id_column)
        table = _rows(path, sep=separator, names=names, **({"dtype": {id_name: str}} | options))
    except (OSError, EOFError, zlib.error, UnicodeError, csv.Error, pd.errors.ParserError) as error:
        raise DataError(
            "Every table must be a CSV or TSV file in UTF-8 with one header line and rows no "
            f"longer than it. Received: {path}, which cannot be read: {str(error).strip()}. "
            "Try saving it again as 'CSV UTF-8' from the program that wrote it."
        ) from error
    table[id_name] = table[id_name].str.strip()
    if FREESURFER.fullmatch(id_name):
        table[id_name] = table[id_name].str.rstrip("/").str.split("/").str[-1]
    _require_ids(path, table[id_name])
    return table.set_index(id_name).rename_axis("id")


def _header(path):
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8-sig", newline="") as file:
        line = next((line for line in file if line.strip()), "")
    separators = "\t" if path.name.endswith((".tsv", ".tsv.gz")) else ",\t;"
    fields = {mark: _fields(line, mark) for mark in separators}
    separator = max(fields, key=lambda mark: len(fields[mark]))
    names = [name.strip() for name in fields[separator]]
    names = [name or f"{UNNAMED}{place}" for place, name in enumerate(names)]
    _require_names(path, names)
    return separator, names


def _fields(line, separator):
    return next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])


def _rows(path, **options):
    with warnings.catch_warnings():
        # Without `index_col=False` pandas takes the first field of longer rows for an index.
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            table = pd.read_csv(
                path,
                header=0,
                index_col=False,
                skipinitialspace=True,
                **options,
            )
        except pd.errors.ParserWarning as warning:
            raise pd.errors.ParserError("its rows are longer than its header") from warning
    return table.dropna(how="all")  # spreadsheets pad with rows of separators


def _id_name(path, names, id_column):
    if id_column in names:
        return id_column
    if id_column == "" or names[0] == f"{UNNAMED}0" or FREESURFER.fullmatch(names[0]):
        return names[0]
    raise DataError(
        f"Every table must have the id column {id_column!r}. "
        f"Received: {path}, with the columns {shown(names)}.{suggestion(id_column, names)} "
        'Try `""` for the first column of each table.'
    )


def _require_names(path, names):
    twice = sorted(name for name, uses in Counter(names).items() if uses > 1)
    if twice:
        raise DataError(
            "Every column must have a unique name. "
            f"Received: {path}, which uses {counted(twice, 'name')} more than once."
        )
    if not names:
        raise DataError(f"Every table must have a header line. Received: {path}, which is empty.")


def _require_ids(path, ids):
    if not len(ids):
        raise DataError(f"Every table must have rows. Received: {path}, which has only a header.")
    without = ids.index[ids.isna() | (ids == "")]
    if len(without):
        raise DataError(
            f"Every row must have an id. Received: {path}, without one in "
            f"{counted(without + 1, 'row')} after the header. Try removing them."
        )
    twice = ids[ids.duplicated()].unique()
    if len(twice):
        raise DataError(
            "Every id must be in one row only. "
            f"Received: {path}, which repeats {counted(twice, 'id')}. "
            "Try one row per subject: the mean over sessions, or one session of each."
        )
