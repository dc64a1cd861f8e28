"""An append-only list of blocks whose older part is in a temporary file."""

import pickle
import tempfile
import weakref
from contextlib import suppress
from typing import Any

import numpy as np
import pandas as pd

MEMORY_LIMIT = 1_000_000
"""Bytes of blocks in memory above which they are moved to an unnamed temporary file."""


class Spool:
    """An append-only list of `(rows, sigma)` blocks that needs little memory in a long training.

    Blocks above `MEMORY_LIMIT` are moved to a temporary file that is deleted with the object. If
    that file cannot be written (a full disk), blocks stay in memory.
    """

    def __init__(self, blocks=()):
        self._file: Any = None
        self._spilled: list[tuple[int, int]] = []
        self._recent: list[tuple] = []
        self._recent_bytes = 0
        self._whole: Any = None
        for rows, sigma in blocks:
            self.append(rows, sigma)

    def append(self, rows, sigma):
        """Add a block.

        Args:
            rows: DataFrame.
            sigma: Array with as many rows.
        """
        if not len(rows):
            return
        self._recent.append((rows, sigma))
        self._recent_bytes += sigma.nbytes + 8 * rows.size  # `rows.memory_usage` is slow
        if self._recent_bytes > MEMORY_LIMIT and len(self._recent) > 1:
            with suppress(OSError):
                self._spill()

    def __len__(self):
        return sum(n for _, n in self._spilled) + sum(len(rows) for rows, _ in self._recent)

    def whole(self):
        """Return all blocks as one, kept until another is added.

        Returns:
            `(rows, sigma)`: DataFrame, and array `[r, k]`, NaN where a block is narrower; without
            rows, an empty DataFrame and array.
        """
        if self._whole is None or len(self._whole[0]) != len(self):
            blocks = list(self) or [(pd.DataFrame(), np.zeros((0, 0)))]
            width = max(sigma.shape[1] for _, sigma in blocks)
            rows = pd.concat([rows for rows, _ in blocks], ignore_index=True)
            self._whole = rows, np.concatenate([_widened(sigma, width) for _, sigma in blocks])
        return self._whole

    def __iter__(self):
        """Yield all blocks, oldest first."""
        yield from (self._read(offset) for offset, _ in self._spilled)
        yield from self._recent

    def after(self, n_rows):
        """Yield the rows that follow the first `n_rows`, as blocks.

        Args:
            n_rows: Number of rows to skip.
        """
        begin = 0
        handles = [(n, lambda o=offset: self._read(o)) for offset, n in self._spilled]
        handles += [(len(block[0]), lambda b=block: b) for block in self._recent]
        for n, read in handles:
            if begin + n > n_rows:
                skip = max(0, n_rows - begin)
                rows, sigma = read()
                yield rows.iloc[skip:], sigma[skip:]
            begin += n

    def __getstate__(self):
        return list(self)

    def __setstate__(self, blocks):
        self.__init__(blocks)

    def _spill(self):
        if self._file is None:
            # Unbuffered: a buffer that cannot be written would make all later reads fail.
            self._file = tempfile.TemporaryFile(prefix="keras_spectral_", buffering=0)  # noqa: SIM115
            weakref.finalize(self, self._file.close)
        places = []
        end = offset = self._file.seek(0, 2)
        try:
            for rows, sigma in self._recent:
                places.append((offset, len(rows)))
                offset += self._write(pickle.dumps((rows, sigma), protocol=5))
        except OSError:
            self._file.truncate(end)
            raise
        self._spilled += places
        self._recent, self._recent_bytes = [], 0

    def _write(self, data):
        if self._file.write(data) < len(data):
            raise OSError("the disk is full")
        return len(data)

    def _read(self, offset):
        self._file.seek(offset)
        return pickle.load(self._file)  # written by this object, so safe to load


def _widened(sigma, width):
    return np.pad(sigma, ((0, 0), (0, width - sigma.shape[1])), constant_values=np.nan)
