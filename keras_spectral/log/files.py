"""Files of a log: CSV or Parquet, and with them permutations and provenance."""

import json
import os
import zlib
from pathlib import Path

import numpy as np
import pandas as pd

from keras_spectral.errors import LogError
from keras_spectral.log.schema import FACTS, KEYS, PERMUTATION_KEYS, TEXT, WHOLE_NUMBERS

ROUND_TRIP = tuple(int(part) for part in pd.__version__.split(".")[:2]) < (3, 1)
"""Older pandas reads floats exactly only with this option; newer pandas always does, and warns."""

NAN = "nan"
"""Text of a NaN singular value; an empty field is a value that does not exist."""


def permutations_path(path):
    """Return the path of the permutations of the log at `path`."""
    return _stem(path).with_name(_stem(path).name + ".permutations.csv.gz")


def json_path(path):
    """Return the path of the provenance of the log at `path`."""
    return _stem(path).with_name(_stem(path).name + ".json")


def write_log(log, path, write_table):
    """Write a log, and the files beside it.

    Args:
        log: `SpectralLog`.
        path: File to write.
        write_table: `write_csv` or `write_parquet`.
    """
    write_table(log.to_dataframe(), Path(path))
    if len(log.permutations):
        write_csv(log.permutations, permutations_path(path))
    else:
        permutations_path(path).unlink(missing_ok=True)
    write_json(log.provenance, json_path(path))


def write_csv(table, path):
    """Write a table to CSV, replacing the file atomically.

    Args:
        table: DataFrame of log rows or permutations.
        path: File to write; `.gz` compresses.
    """
    # Without the time of writing, equal tables make equal files.
    compression = {"method": "gzip", "mtime": 0} if Path(path).suffix == ".gz" else None
    _replace(path, lambda part: csv_ready(table).to_csv(part, index=False, compression=compression))


def write_parquet(table, path):
    """Write a table to Parquet, replacing the file atomically.

    Args:
        table: DataFrame of log rows.
        path: File to write.
    """
    _replace(path, lambda part: table.to_parquet(part, index=False))


def write_text(text, path):
    """Write a text file, replacing it atomically.

    Args:
        text: Text to write, as UTF-8.
        path: File to write.
    """
    _replace(path, lambda part: Path(part).write_text(text, encoding="utf-8"))


def write_json(data, path):
    """Write a dictionary to JSON, replacing the file atomically.

    Args:
        data: Dictionary; NumPy numbers and arrays become numbers and lists.
        path: File to write.
    """
    write_text(json.dumps(data, indent=1, default=_plain), path)


def csv_ready(table):
    """Return log rows with the text of NaN singular values, to distinguish them from absent ones.

    Args:
        table: DataFrame of log rows; another table is returned unchanged.

    Returns:
        DataFrame, to be written with empty fields for absent values.
    """
    if "frobenius_norm" not in table or "sigma_1" not in table:
        return table
    unknown = np.isnan(table["frobenius_norm"].to_numpy(dtype=float))
    if not unknown.any():
        return table
    ready = table.astype({"frobenius_norm": object, "sigma_1": object})
    ready.loc[unknown, ["frobenius_norm", "sigma_1"]] = NAN
    return ready


def read_table(path):
    """Read the rows of a log, checked against the schema.

    Args:
        path: `.csv`, `.csv.gz` or `.parquet` file.

    Returns:
        DataFrame with key, fact and sigma columns.

    Raises:
        LogError: If the file is missing, not a log, or cut off.
    """
    table = read_columns(path, (*KEYS, *FACTS))
    text = table.filter(like="sigma_").select_dtypes(exclude="number").columns
    if len(text):
        raise LogError(
            "A log must hold numbers as singular values. "
            f"Received: {path}, with text in {text[0]}. Was the file edited?"
        )
    found = table.filter(like="sigma_").notna().sum(axis=1).to_numpy()
    expected = table["rank_bound"].to_numpy()
    known = table["frobenius_norm"].notna().to_numpy() & ~table["truncated"].to_numpy(dtype=bool)
    bad = np.flatnonzero(known & (found != expected))
    if len(bad):
        raise LogError(
            "A log must hold `rank_bound` singular values in every row that is not truncated. "
            f"Received: {path}, whose row {bad[0] + 1} holds {found[bad[0]]} of "
            f"{expected[bad[0]]}. The file was edited or cut off; try a copy without that row."
        )
    return table


def read_permutations(path):
    """Read the permutations of the log at `path`; `None` if there are none."""
    beside = permutations_path(path)
    return read_columns(beside, PERMUTATION_KEYS) if beside.exists() else None


def read_provenance(path):
    """Read the provenance of the log at `path`; an empty dictionary if there is none."""
    beside = json_path(path)
    if not beside.exists():
        return {}
    try:
        return dict(json.loads(beside.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise LogError(
            "The provenance beside a log must be a JSON dictionary. "
            f"Received: {beside}, which cannot be read: {error}. Try removing that file."
        ) from error


def read_columns(path, required):
    """Read a table of a log, checked for the columns it must have.

    Args:
        path: `.csv`, `.csv.gz` or `.parquet` file.
        required: Names of columns.

    Returns:
        DataFrame.

    Raises:
        LogError: If the file is missing, cut off, without these columns, or needs pyarrow.
    """
    path = Path(path)
    if not path.is_file():
        raise LogError(f"`path` must be a log file. Received: {path}, which is not a file.")
    try:
        table = pd.read_parquet(path) if path.suffix == ".parquet" else _read_csv(path)
    except ImportError as error:
        raise LogError(
            f"`path` must be of a kind that can be read here. Received: {path}, and no pyarrow. "
            'Try `pip install "keras_spectral[parquet]"`, or a CSV file.'
        ) from error
    except (ValueError, OSError, EOFError, zlib.error) as error:
        raise LogError(
            "`path` must be a complete log file. "
            f"Received: {path}, which cannot be read: {str(error).strip()}. "
            "Try the file that SpectralCSVLogger wrote."
        ) from error
    missing = [column for column in required if column not in table]
    if missing:
        raise LogError(
            f"`path` must be a log with the columns {list(required)}. "
            f"Received: {path}, without {missing}. Try the file that SpectralCSVLogger wrote."
        )
    return table


def _read_csv(path):
    if path.suffix != ".gz":
        _require_whole_lines(path)
    header = pd.read_csv(path, nrows=0).columns
    types = {column: str for column in TEXT if column in header}
    types |= {column: np.int64 for column in WHOLE_NUMBERS if column in header}
    types |= {column: bool for column in ("truncated",) if column in header}
    numbers = [column for column in header if column not in types]
    labels = header[: header.get_loc("epoch")] if "epoch" in header else []
    absent = {column: [""] if column in labels else ["", NAN] for column in numbers}
    if "truncated" in header:  # a table of spectra: each row has a norm
        types |= {"frobenius_norm": float}
        absent |= {"frobenius_norm": [NAN]}
    return pd.read_csv(
        path,
        dtype=types,  # type: ignore[arg-type]
        keep_default_na=False,
        na_values=absent,
        **({"float_precision": "round_trip"} if ROUND_TRIP else {}),
    )


def _require_whole_lines(path):
    size = path.stat().st_size
    with open(path, "rb") as file:
        fields = file.readline().count(b",")
        file.seek(max(0, size - 1_000_000))
        tail = file.read()
    last = tail.rstrip(b"\n").rpartition(b"\n")[2]
    if fields and (not tail.endswith(b"\n") or last.count(b",") < fields):
        raise ValueError(
            "its last line is cut off (did a run crash, or the disk fill up?). Everything before "
            f"that line is complete: delete the last line, which begins with {last[:60]!r}"
        )


def _replace(path, write):
    path = Path(path)
    part = path.with_name(path.name + ".part")
    try:
        write(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _plain(value):
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else str(value)


def _stem(path):
    path = Path(path)
    name = path.name.removesuffix(".gz")
    return path.with_name(name.rpartition(".")[0] or name)
