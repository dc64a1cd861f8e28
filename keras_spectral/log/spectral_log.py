"""The log: one row per recorded spectrum, its summaries, and its files. Needs no TensorFlow.

A row is identified by `(run, epoch, step, layer, weight, quantity, group)`. It stores singular
values and sizes only; summaries are computed from them on request.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from keras_spectral.errors import LogError
from keras_spectral.groups import ALL
from keras_spectral.log import files
from keras_spectral.log.schema import (
    FACTS,
    KEYS,
    PERMUTATION_KEYS,
    RESIDUAL,
    of_run,
    require_unique_keys,
    sigma_columns,
)
from keras_spectral.log.selection import selected
from keras_spectral.log.spool import Spool
from keras_spectral.log.summary import summary_table
from keras_spectral.summaries import SUMMARIES, sigma_errors


class SpectralLog:
    """Recorded spectra of one or more training runs.

    They come from `model.spectral_log`, `introspect`, `SpectralProbe` and `read_log`.

    Args:
        rows: DataFrame with the key and fact columns of the schema, one row per spectrum. Columns
            before `epoch` other than `run` label the run (`fold`, `seed`, …).
        sigma: Array `[r, k]`, singular values of each row, largest first, NaN beyond its length.
        permutations: DataFrame with summaries of permuted groups, or `None`.
        provenance: Dictionary of versions, fingerprints, settings, seeds.

    Attributes:
        permutations: DataFrame, one row per spectrum of a permuted group: the keys, `permutation`
            (from 1), sizes, and every summary of `keras_spectral.summaries`.
        provenance: Dictionary that is written to JSON with the log.
    """

    def __init__(self, rows=None, sigma=None, permutations=None, provenance=None):
        self._blocks = Spool([] if rows is None else [(rows, np.asarray(sigma, dtype=float))])
        # A spool of summaries has no singular values, `[r, 0]`.
        summaries = (
            [] if permutations is None else [(permutations, np.empty((len(permutations), 0)))]
        )
        self._permuted = Spool(summaries)
        self.provenance: dict[str, Any] = dict(provenance or {})

    def append(self, other):
        """Add all rows of another log to the end of this one, in place.

        Args:
            other: A `SpectralLog`. Its rows are shared, not copied.
        """
        for block in other._blocks.after(0):
            self._blocks.append(*block)
        for block in other._permuted.after(0):
            self._permuted.append(*block)
        self.provenance = {**other.provenance, **self.provenance}

    @classmethod
    def concat(cls, logs):
        """Return one log with the rows of several runs.

        Args:
            logs: Sequence of logs with distinct runs, or a mapping from run name to log.

        Returns:
            A new `SpectralLog`; its provenance maps each run to that run's provenance.

        Raises:
            LogError: If the same key occurs in two of the logs.
        """
        if isinstance(logs, Mapping):
            logs = [log.with_run(run) for run, log in logs.items()]
        logs = list(logs)
        result = cls()
        for log in logs:
            result.append(log)
        result.provenance = {"runs": {run: log.provenance for log in logs for run in log.runs}}
        require_unique_keys(result.rows)
        return result

    def with_run(self, run):
        """Return this log with another run label.

        Args:
            run: Text, or a mapping such as `{"fold": 0, "seed": 1}`, whose entries become columns
                of their own and whose run text is `"fold=0 seed=1"`.

        Returns:
            A new `SpectralLog`.

        Raises:
            LogError: If a label has the name of another column.
        """
        new = SpectralLog(provenance=self.provenance)
        new._blocks = Spool((of_run(rows, run), sigma) for rows, sigma in self._blocks)
        new._permuted = Spool((of_run(table, run), sigma) for table, sigma in self._permuted)
        return new

    def __len__(self):
        return len(self._blocks)

    def __repr__(self):
        counts = f"{len(self)} spectra, {len(self.steps)} steps"
        return f"<SpectralLog: {counts}, layers={self.layers}, groups={self.groups}>"

    @property
    def rows(self):
        """DataFrame of keys and facts, one row per spectrum, without singular values."""
        return self._merged()[0]

    @property
    def sigma(self):
        """Array `[r, k]` of singular values, rows as in `rows`, NaN beyond a row's length."""
        return self._merged()[1]

    @property
    def sigma_error(self):
        """Array `[r, k]` like `sigma`: an upper bound of the error of each singular value.

        0 where values are exact up to rounding; see `Spectra(method="subspace")`.
        """
        rows, sigma = self._merged()
        missed = rows[RESIDUAL] if RESIDUAL in rows else np.zeros(len(rows))
        return sigma_errors(sigma, missed)

    @property
    def permutations(self):
        """DataFrame of the summaries of permuted groups, empty if there are none."""
        if not len(self._permuted):
            return pd.DataFrame(columns=[*PERMUTATION_KEYS, *SUMMARIES])
        return self._permuted.whole()[0]

    @property
    def lengths(self):
        """Number of spectra, and of rows of `permutations`: arguments of a later `after`."""
        return len(self._blocks), len(self._permuted)

    @property
    def runs(self):
        """Run labels, in order of appearance."""
        return self._distinct("run")

    @property
    def layers(self):
        """Layer paths, in order of appearance, which is the order in the model."""
        return self._distinct("layer")

    @property
    def groups(self):
        """Group labels, `all` first."""
        return self._distinct("group")

    @property
    def quantities(self):
        """Recorded quantities."""
        return self._distinct("quantity")

    @property
    def steps(self):
        """Recorded steps, ascending."""
        return sorted(int(step) for step in self._distinct("step"))

    def select(self, **keys):
        """Return the part of the log whose keys have the given values.

        Args:
            **keys: Key columns or run labels, each with a value or a list of values.

        Returns:
            A new `SpectralLog`; permutations are selected in the same way.

        Raises:
            LogError: If a key is not a column, or a value does not occur.
        """
        rows, sigma = self._merged()
        keep = selected(rows, keys)
        table = self.permutations
        permuted = selected(table, keys, must_occur=False)
        return SpectralLog(rows[keep], _trimmed(sigma[keep]), table[permuted], self.provenance)

    def singular_values(self, layer, quantity="gradient", group=ALL, step=None, **keys):
        """Return the singular values of one record.

        Args:
            layer: Layer path.
            quantity: `"activation"`, `"adjoint"` or `"gradient"`.
            group: Group label; `"all"` is the whole batch.
            step: Training step. May be left out if the log holds only one.
            **keys: Further keys (`weight`, `run`, `epoch`, `fold`, …) where those do not suffice.

        Returns:
            Array `[k]`, largest first. Singular values of the full matrix beyond `k` are exactly
            zero, unless the row is marked `truncated`.

        Raises:
            LogError: If no record, or more than one, has these keys.
        """
        given = {"layer": layer, "quantity": quantity, "group": group, **keys}
        if step is not None:
            given["step"] = step
        found = self.select(**given)
        if len(found) != 1:
            open_keys = [key for key in KEYS if key not in given and found.rows[key].nunique() > 1]
            raise LogError(
                "`singular_values` must be asked for exactly one record. "
                f"Received: {given}, which fits {len(found)} records. "
                + (f"Try giving {open_keys} as well." if len(found) else "Try `log.rows`.")
            )
        values = found.sigma[0]
        return values[: _length(found.rows.iloc[0], values)]

    def summary(self, *names, size_corrected=False):
        """Return summaries of every spectrum beside its keys.

        Args:
            *names: Names out of `keras_spectral.summaries.SUMMARIES`; none means all.
            size_corrected: Multiply norms by `size_correction`, so that groups of different sizes
                can be compared. Ranks cannot be corrected and stay as they are.

        Returns:
            DataFrame with the key and fact columns and one column per summary.

        Raises:
            LogError: If a name is unknown.
        """
        return summary_table(*self._merged(), names, size_corrected)

    def to_dataframe(self):
        """Return the log as a tidy table: keys, facts, and `sigma_1 … sigma_k`.

        Returns:
            DataFrame, one row per spectrum; `sigma` columns are NaN beyond a row's length.
        """
        rows, sigma = self._merged()
        values = pd.DataFrame(sigma, columns=sigma_columns(sigma.shape[1]), index=rows.index)
        return pd.concat([rows, values], axis=1)

    def to_csv(self, path):
        """Write the log to CSV, with permutations and provenance in files beside it.

        Args:
            path: File to write; `spectra.csv` gets `spectra.permutations.csv.gz` (if there are
                any) and `spectra.json` beside it. Files are replaced atomically: a crash leaves
                the old ones.
        """
        files.write_log(self, path, files.write_csv)

    def to_parquet(self, path):
        """Write the log to Parquet; needs the `parquet` extra. Files beside it as in `to_csv`.

        Args:
            path: File that ends in `.parquet`.
        """
        files.write_log(self, path, files.write_parquet)

    def after(self, n_rows, n_permutations=0):
        """Return the rows after the first `n_rows`, and the permutations after `n_permutations`.

        Args:
            n_rows: First entry of an earlier `lengths`.
            n_permutations: Second entry of an earlier `lengths`.

        Returns:
            A new `SpectralLog`.
        """
        new = SpectralLog(provenance=self.provenance)
        new._blocks = Spool(self._blocks.after(n_rows))
        new._permuted = Spool(self._permuted.after(n_permutations))
        return new

    def _merged(self):
        if not len(self._blocks):
            return pd.DataFrame(columns=[*KEYS, *FACTS]), np.zeros((0, 0))
        return self._blocks.whole()

    def _distinct(self, key):
        return list(self.rows[key].unique())


def _length(row, values):
    if np.isnan(row["frobenius_norm"]):
        return len(values) if row["truncated"] else int(row["rank_bound"])
    return int((~np.isnan(values)).sum())


def _trimmed(sigma):
    used = np.flatnonzero((~np.isnan(sigma)).any(axis=0))
    return sigma[:, : used[-1] + 1] if len(used) else sigma
