"""What only a callback learns from Keras, and only a callback can tell it."""

import sys
from typing import Any

import keras


class EpochTeller(keras.callbacks.Callback):
    """Keras tells callbacks alone which epoch it is in, and takes named summaries from them.

    Args:
        logger: `SpectralLogger`.
    """

    params: Any  # never None while Keras calls

    def __init__(self, logger):
        super().__init__()
        self._logger = logger
        self._seen = len(logger.result())

    def on_epoch_begin(self, epoch, logs=None):
        """Start an epoch, after callbacks that restore an interrupted training had their turn."""
        self._logger.begin_epoch(epoch, getattr(self.model, "optimizer", None))

    def on_epoch_end(self, epoch, logs=None):
        """Put the summaries named in `Spectra(show=…)` into the epoch's logs.

        Says once which interval a budget led to.
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
