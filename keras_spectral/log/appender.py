"""Appending to a log on disk: the header once, no row twice, complete rows only."""

import os
import zlib
from pathlib import Path

import pandas as pd

from keras_spectral.errors import LogError
from keras_spectral.log.files import csv_ready, permutations_path, read_columns, write_csv
from keras_spectral.log.schema import ALL_FACTS, KEYS


class LogAppender:
    """Appends logs to a CSV file and its permutations file.

    Args:
        path: The CSV file.
        append: Keep the rows of an existing file; otherwise it is emptied now.

    Raises:
        LogError: If an existing file to append to is not a log.
        OSError: If the file cannot be written.
    """

    def __init__(self, path, append):
        self._tables = [
            _TableAppender(Path(path), KEYS, append),
            _TableAppender(permutations_path(path), (*KEYS, "permutation"), append),
        ]

    def write(self, log):
        """Append a log's rows and permutations, except those that the files already hold.

        Args:
            log: `SpectralLog`.

        Raises:
            OSError: If a file cannot be written; both are then as they were before.
        """
        tables = zip(self._tables, (log.to_dataframe(), log.permutations), strict=True)
        new = [appender.prepared(table) for appender, table in tables]
        sizes = [appender.size for appender in self._tables]
        try:
            for appender, table in zip(self._tables, new, strict=True):
                appender.append(table)
        except BaseException:  # KeyboardInterrupt too: no incomplete row may remain
            for appender, size in zip(self._tables, sizes, strict=True):
                appender.truncate(size)
            raise


class _TableAppender:
    def __init__(self, path, keys, append):
        self._path = path
        self._keys = list(keys)
        self._columns: list[str] = []
        self._written: set[tuple] = set()
        if append and self.size:
            self._continue_file()
        elif path.suffix == ".gz":
            path.unlink(missing_ok=True)
        else:
            path.write_bytes(b"")

    @property
    def size(self):
        """Bytes of the file, 0 if there is none."""
        return self._path.stat().st_size if self._path.exists() else 0

    def prepared(self, table):
        """Return the rows that are not in the file yet, after adding their columns to the file."""
        if self._written and len(table):
            keys = table[self._keys].itertuples(index=False, name=None)
            table = table[[key not in self._written for key in keys]]
        if len(table) and self._columns and set(table.columns) - set(self._columns):
            self._widen(table)
        return table

    def append(self, table):
        """Append rows."""
        if not len(table):
            return
        self._columns = self._columns or list(table.columns)
        csv_ready(table).reindex(columns=self._columns).to_csv(
            self._path,
            mode="a",
            header=not self.size,
            index=False,
            compression="gzip" if self._path.suffix == ".gz" else None,
        )

    def truncate(self, size):
        """Cut the file to `size` bytes, its size before rows were appended."""
        if self._path.exists():
            os.truncate(self._path, size)

    def _continue_file(self):
        text, size = _contents(self._path)
        header = text.partition(b"\n")[0].decode(errors="replace").strip().split(",")
        missing = [key for key in self._keys if key not in header]
        if missing or b"\n" not in text:
            raise LogError(
                "`append=True` must be used with a log file. "
                f"Received: {self._path}, without the columns {missing}. Try another file name."
            )
        self.truncate(size)
        if size:
            held = read_columns(self._path, self._keys)
            self._columns = list(held.columns)
            self._written = set(held[self._keys].itertuples(index=False, name=None))

    def _widen(self, table):
        # A batch with more rows than any before has longer spectra: the file is rewritten.
        held = pd.read_csv(self._path, dtype=str, keep_default_na=False)
        new = [column for column in table.columns if column not in self._columns]
        labels = [name for name in new if name not in ALL_FACTS and not name.startswith("sigma_")]
        place = self._columns.index("epoch")
        wider = [*self._columns[:place], *labels, *self._columns[place:]]
        wider += [column for column in new if column not in labels]
        write_csv(held.reindex(columns=wider), self._path)
        self._columns = wider


def _contents(path):
    # The readable part of a file, and the number of bytes of its complete rows or gzip members.
    data = path.read_bytes()
    if path.suffix != ".gz":
        return data, data.rfind(b"\n") + 1
    text, size = b"", 0
    while size < len(data):
        member = zlib.decompressobj(wbits=31)
        try:
            text += member.decompress(data[size:])
        except zlib.error as error:
            raise LogError(
                f"`append=True` must be used with a log file. Received: {path}, which cannot be "
                f"read: {error}. Try another file name."
            ) from error
        if not member.eof:
            break
        size = len(data) - len(member.unused_data)
    return text, size
