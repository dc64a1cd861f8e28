"""A callback that passes the epoch to the recorder, and summaries to Keras' logs."""

import sys
from typing import Any

import keras


class EpochTeller(keras.callbacks.Callback):
    """Passes the epoch to the recorder, and summaries to the epoch's logs.

    Keras gives the number of the epoch to callbacks only, and only they can add to its logs.

    Args:
        logger: `SpectralLogger`.
    """

    params: Any  # never None while Keras calls

    def __init__(self, logger):
        super().__init__()
        self._logger = logger
        self._seen = len(logger.result())

    def on_epoch_begin(self, epoch, logs=None):
        """Start an epoch. `on_train_begin` of callbacks that restore a training came before."""
        self._logger.begin_epoch(epoch, getattr(self.model, "optimizer", None))

    def on_epoch_end(self, epoch, logs=None):
        """Put the summaries named in `Spectra(show=…)` into the epoch's logs.

        Prints the interval that a budget has found, once.
        """
        found = self._logger.new_interval()
        if found and self.params.get("verbose"):
            print(f"\n{found}", file=sys.stderr)
        names = self._logger.settings.show
        if not names or logs is None:
            return
        log = self._logger.result()
        new, self._seen = log.after(self._seen), len(log)
        table = new.summary(*names)
        table = table[table["quantity"] == "gradient"]
        for group, rows in table.groupby("group", sort=False):
            logs.update({f"{name}_{group}": float(rows[name].mean()) for name in names})
