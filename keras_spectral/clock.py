"""The callback that tells the logger where training stands."""

import keras


class Clock(keras.callbacks.Callback):
    """Keeps the logger's epoch and step in line with `fit`, and shows the named summaries.

    Args:
        logger: `SpectralLogger`.
    """

    def __init__(self, logger):
        super().__init__()
        self._logger = logger
        self._seen = len(logger.result())

    def on_epoch_begin(self, epoch, logs=None):
        """Start an epoch, after callbacks that restore an interrupted training had their turn."""
        self._logger.catch_up(getattr(self.model, "optimizer", None))
        self._logger.begin_epoch(epoch)

    def on_epoch_end(self, epoch, logs=None):
        """Put the summaries named in `Spectra(show=…)` into the epoch's logs."""
        names = self._logger.settings.show
        if not names or logs is None:
            return
        log = self._logger.result()
        new, self._seen = log.after(self._seen), len(log)
        table = new.summary(*names)
        table = table[table["quantity"] == "gradient"]
        for group, rows in table.groupby("group", sort=False):
            logs.update({f"{name}_{group}": float(rows[name].mean()) for name in names})
