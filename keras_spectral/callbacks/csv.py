"""A callback that writes spectra to CSV during training."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from keras_spectral.callbacks.same_model import require_same_model
from keras_spectral.errors import RecordingError, SettingsError
from keras_spectral.log.appender import LogAppender
from keras_spectral.log.files import json_path, write_json
from keras_spectral.log.schema import require_run_labels


class SpectralCSVLogger(keras.callbacks.Callback):
    """Appends recorded spectra to a CSV file, one row per spectrum.

    Complete rows are written at the end of every epoch or every `n` steps, also when training is
    interrupted; a crash loses at most the rows recorded since the last write. Permuted groups are
    written to `<name>.permutations.csv.gz`, provenance to `<name>.json`. `read_log` reads all of
    them back.

    Args:
        filename: The file, such as `"spectra.csv"`.
        append: Append to an existing file instead of replacing it. Rows that it already holds are
            not written again, so an interrupted training can be resumed.
        every: `"epoch"`, or a positive number of steps between two writes.
        run: Text or mapping (`{"fold": 0, "seed": 1}`) that labels the rows; needed to distinguish
            several runs in one file.

    Raises:
        SettingsError: If `every` is neither `"epoch"` nor a positive integer.
        LogError: If a label in `run` has the name of a column.
    """

    model: Any  # Keras sets it before it calls the methods below

    def __init__(self, filename, append=False, every="epoch", run=None):
        super().__init__()
        self.filename = Path(filename)
        self.append = append
        self._run = run
        self._appender = None
        self._writes_for = None
        self._log = None
        self._written = (0, 0)
        self._provenance: Any = None
        if isinstance(run, Mapping):
            require_run_labels(run)
        self._every = every
        if every != "epoch":
            if not isinstance(every, int) or every < 1:
                raise SettingsError(
                    '`every` must be "epoch" or a positive number of steps. '
                    f'Received: every={every!r}. Try every="epoch".'
                )
            # Set only if needed: Keras trains faster without callbacks per batch.
            self.on_train_batch_end = self._flush_when_due

    def on_train_begin(self, logs=None):
        """Open the file, so that one that cannot be written raises before training.

        Args:
            logs: Not used.

        Raises:
            RecordingError: If the model records no spectra, or is not that of an earlier `fit`.
            LogError: If the file to append to is not a log.
            OSError: If the file cannot be written.
        """
        if getattr(self.model, "spectral_logger", None) is None:
            raise RecordingError(
                "`SpectralCSVLogger` must be used with a model that records spectra. "
                f"Received: {type(self.model).__name__} without them. "
                "Try `SpectralModel` and `compile(…, spectra=1)`."
            )
        require_same_model(self, self._writes_for)
        log = self.model.spectral_log
        if self._appender is None:
            self._appender = LogAppender(self.filename, append=self.append)
            self._writes_for = self.model
        if self._log is not log:
            self._log, self._written = log, log.lengths
        self._write_provenance()

    def on_epoch_end(self, epoch, logs=None):
        """Write the rows that were recorded in this epoch.

        Args:
            epoch: Not used.
            logs: Not used.
        """
        self.flush_spectra()

    def on_train_end(self, logs=None):
        """Write the remaining rows.

        Args:
            logs: Not used.
        """
        self.flush_spectra()

    def flush_spectra(self):
        """Write all rows that are not written yet; `fit` calls it too when it is interrupted.

        If the file cannot be written (a full disk), the rows stay in `model.spectral_log`, a
        warning is shown, and the next call tries again.
        """
        if self._appender is None:
            return
        log = self.model.spectral_log
        if self._log is not log:  # `reset_state` has begun a new log
            self._log, self._written = log, (0, 0)
        new = log.after(*self._written)
        try:
            self._appender.write(new if self._run is None else new.with_run(self._run))
            self._written = log.lengths
            # The interval that a budget led to comes later than the rest.
            if self._provenance is not None and log.provenance != self._provenance:
                self._write_provenance()
        except OSError as error:
            warnings.warn(
                f"{self.filename} cannot be written ({error}). {len(new)} spectra are kept in "
                "memory and tried again; `model.spectral_log.to_csv(path)` writes them elsewhere.",
                stacklevel=2,
            )

    def _write_provenance(self):
        log = self.model.spectral_log
        provenance = log.provenance if self._run is None else {**log.provenance, "run": self._run}
        write_json(provenance, json_path(self.filename))
        self._provenance = dict(log.provenance)

    def _flush_when_due(self, batch, logs=None):
        if (batch + 1) % self._every == 0:
            self.flush_spectra()
