"""Appending to a log on disk: the header once, no row twice, never half a row."""

import os
from pathlib import Path

import pandas as pd

from keras_spectral.errors import LogError
from keras_spectral.log.files import csv_ready, relabelings_path, write_csv
from keras_spectral.log.schema import KEYS


class LogAppender:
    """Appends logs to a CSV file and its relabelings file.

    Args:
        path: The CSV file.
        append: Keep what the file holds; otherwise it is emptied now.

    Raises:
        LogError: If an existing file to append to is not a log.
        OSError: If the file cannot be written.
    """

    def __init__(self, path, append):
        self._tables = [
            _TableAppender(Path(path), KEYS, append),
            _TableAppender(relabelings_path(path), (*KEYS, "relabeling"), append),
        ]

    def write(self, log):
        """Append a log's rows and relabelings, except those that the files hold already.

        Args:
            log: `SpectralLog`.

        Raises:
            OSError: If a file cannot be written; it is then as long as before.
        """
        rows, relabelings = self._tables
        rows.write(log.to_dataframe())
        relabelings.write(log.relabelings)


class _TableAppender:
    def __init__(self, path, keys, append):
        self._path = path
        self._keys = list(keys)
        self._columns: list[str] = []
        self._held: set[tuple] = set()
        if append and path.exists() and path.stat().st_size:
            self._take_over()
        elif path.exists() or path.suffix != ".gz":
            path.write_bytes(b"")

    def write(self, table):
        """Append the rows of a table that are not held yet."""
        if self._held and len(table):
            keys = table[self._keys].itertuples(index=False, name=None)
            table = table[[key not in self._held for key in keys]]
        if not len(table):
            return
        if set(table.columns) - set(self._columns) and self._columns:
            self._widen(table)
        header = not self._columns
        self._columns = self._columns or list(table.columns)
        self._append(csv_ready(table).reindex(columns=self._columns), header)

    def _append(self, table, header):
        before = self._path.stat().st_size if self._path.exists() else 0
        compression = "gzip" if self._path.suffix == ".gz" else None
        try:
            table.to_csv(self._path, mode="a", header=header, index=False, compression=compression)
        except OSError:
            os.truncate(self._path, before)
            self._columns = [] if header else self._columns
            raise

    def _take_over(self):
        if self._path.suffix != ".gz":
            _drop_cut_line(self._path)
        held = pd.read_csv(self._path, dtype=str, keep_default_na=False)
        missing = [key for key in self._keys if key not in held]
        if missing:
            raise LogError(
                "`append=True` must be used with a log file. "
                f"Received: {self._path}, without the columns {missing}. Try another file name."
            )
        self._columns = list(held.columns)
        numbers = [key for key in ("epoch", "step", "relabeling") if key in self._keys]
        keys = held[self._keys].astype({key: int for key in numbers})
        self._held = set(keys.itertuples(index=False, name=None))

    def _widen(self, table):
        # A batch with more rows than any before has longer spectra. Rewritten once, at once.
        held = pd.read_csv(self._path, dtype=str, keep_default_na=False)
        wider = [*self._columns, *(c for c in table.columns if c not in self._columns)]
        write_csv(held.reindex(columns=wider), self._path)
        self._columns = wider


def _drop_cut_line(path):
    with open(path, "rb+") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)
