"""A callback that evaluates the same examples repeatedly during training."""

from typing import Any

import keras

from keras_spectral import schedules
from keras_spectral.callbacks.same_model import require_same_model
from keras_spectral.introspection import Introspection, data_batches, every_call
from keras_spectral.provenance import provenance
from keras_spectral.settings import Spectra


class SpectralProbe(keras.callbacks.Callback):
    """Records a fixed set of examples before epochs and after the last one.

    Training batches differ from step to step; a probe compares groups on the same examples
    throughout. All examples form one batch, in inference mode, as in `introspect`. Works with any
    compiled `keras.Model`, and does not affect training.

    Args:
        x: Array, or structure of arrays, with one row per example.
        y: Targets, as in `fit`.
        groups: As in `SpectralModel.fit`; with `permutations(…)` the null distribution is recorded
            alike.
        every: Number of epochs between two evaluations, or a schedule.
        sample_weight: Weights, as in `fit`.
        spectra: What to record, as in `SpectralModel.compile`; its schedule is not used.

    Attributes:
        log: The `SpectralLog`. `epoch` and `step` count the training before each evaluation.

    Raises:
        GroupsError: If `groups` does not fit `x`.
        SettingsError: If `every` or `spectra` is not possible.
    """

    model: Any  # never None while Keras calls

    def __init__(self, x, y, groups=None, every=1, sample_weight=None, spectra=1):
        super().__init__()
        self._batches, self._membership = data_batches(x, y, groups, sample_weight, None)
        self._due = Spectra(schedules.epochs(every) if isinstance(every, int) else every).every
        self._settings = every_call(Spectra.of(spectra))
        self._data = x, y
        self._introspection: Any = None
        self._looks_at = None
        self._next_epoch = 0
        self._last_step = -1
        self._steps_before = 0  # of optimizers that an earlier `compile` made

    @property
    def log(self):
        """The `SpectralLog` of all evaluations so far."""
        if self._introspection is None:
            from keras_spectral.log import SpectralLog

            return SpectralLog()
        return self._introspection.logger.result()

    def on_train_begin(self, logs=None):
        """Prepare for the model.

        Args:
            logs: Not used.

        Raises:
            RecordingError: If the model is not the one of an earlier `fit`.
        """
        require_same_model(self, self._looks_at)
        self._looks_at = self.model
        before = self._introspection
        # Anew for every `fit`: the model may have been compiled with another loss meanwhile.
        self._introspection = Introspection(self.model, self._settings)
        if before is not None:
            self._introspection.logger = before.logger
            self._steps_before += max(0, self._last_step - self._step())
        self._introspection.logger.membership = self._membership
        self.log.provenance |= provenance(self.model, self._settings, *self._data, self._membership)

    def on_epoch_begin(self, epoch, logs=None):
        """Evaluate the examples, if this epoch is due.

        Args:
            epoch: Number of the epoch about to begin.
            logs: Not used.
        """
        self._next_epoch = epoch + 1
        if self._due(self._step(), epoch, 0):
            self._look(epoch)

    def on_train_end(self, logs=None):
        """Evaluate the trained model.

        Args:
            logs: Not used.
        """
        self._look(self._next_epoch)

    def _look(self, epoch):
        step = self._step()
        if step == self._last_step:  # the end of one `fit` is the beginning of the next
            return
        self._last_step = step
        logger = self._introspection.logger
        logger.begin_epoch(epoch)
        logger.step = step
        for (x, index), y, sample_weight in self._batches:
            self._introspection.record(x, y, sample_weight, index)

    def _step(self):
        logger = getattr(self.model, "spectral_logger", None)
        steps = self.model.optimizer.iterations if logger is None else logger.step
        return self._steps_before + int(steps)
