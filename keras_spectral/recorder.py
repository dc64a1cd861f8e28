"""The recorder of a model: is a step due? Hand its record over, append its spectra to the log."""

import warnings

import numpy as np

from keras_spectral.errors import RecordingError
from keras_spectral.groups import Membership
from keras_spectral.log import SpectralLog
from keras_spectral.solver import Solver


class SpectralLogger:
    """Records spectra step by step, like a Keras metric: `update_state`, `result`, `reset_state`.

    `update_state` takes what a recorded step returned and leaves it to a thread; training goes on
    meanwhile. `result` waits for that thread and returns the log.

    Args:
        settings: `Spectra`.
        predecessor: A logger whose log and step count this one continues, or `None`.

    Attributes:
        step: Batches seen over the whole life of the model.
        epoch: Number of the epoch in the current `fit`.
        batch: Batches seen in this epoch.
        membership: `Membership` of the examples that are recorded.
        nonfinite: Number of recorded spectra that held NaN or Inf so far.
    """

    def __init__(self, settings, predecessor=None):
        self.settings = settings
        self.step = 0 if predecessor is None else predecessor.step
        self.epoch = self.batch = 0
        self.membership = Membership.of(None)
        self.nonfinite = 0 if predecessor is None else predecessor.nonfinite
        self._log = SpectralLog() if predecessor is None else predecessor.result()
        self._solver = Solver(settings)

    def begin_epoch(self, epoch, optimizer=None):
        """Start counting batches of an epoch.

        Args:
            epoch: The epoch's number in the current `fit`.
            optimizer: Keras optimizer, or `None`. Its `iterations` tell of steps before this
                process, which a checkpoint or a loaded model restores.
        """
        self.epoch, self.batch = epoch, 0
        if optimizer is not None and optimizer.built:
            accumulated = getattr(optimizer, "gradient_accumulation_steps", None) or 1
            iterations = optimizer.iterations  # with accumulation a tensor, else a variable
            iterations = getattr(iterations, "value", iterations)
            self.step = max(self.step, int(iterations.numpy()) * accumulated)

    def is_due(self, steps=1):
        """Return whether the schedule wants one of the next steps to be recorded.

        Args:
            steps: Number of steps.
        """
        every = self.settings.every
        return any(every(self.step + k, self.epoch, self.batch + k) for k in range(steps))

    def advance(self, steps=1):
        """Count steps that have been run.

        Args:
            steps: Number of steps.
        """
        self.step += steps
        self.batch += steps

    def members(self, index):
        """Return which examples of a batch are in which group.

        Args:
            index: Integer array `[n]`, rows of the table of groups, or `None`.

        Returns:
            Boolean array `[n, g]`, or `None` without groups.
        """
        if index is None or not self.membership.names:
            return None
        return self.membership.mask[np.asarray(index)]

    def update_state(self, factors, n, members=None):
        """Record the present step. Its spectra are found in a thread.

        A batch without examples leaves no row.

        Args:
            factors: Dictionary `(layer path, weight name) -> Factors`.
            n: Number of examples in the batch.
            members: What `members` returned for the batch.
        """
        if not n or not factors:
            return
        mask = np.zeros((n, 0), bool) if members is None else np.asarray(members, bool)
        self._solver.submit(self.step, self.epoch, factors, mask, self.membership)
        self._append(self._solver.done())

    def result(self):
        """Return the log with everything recorded so far.

        Returns:
            The logger's own `SpectralLog`, which goes on growing.
        """
        self._append(self._solver.rest())
        return self._log

    def reset_state(self):
        """Forget everything recorded. The step count goes on."""
        self.result()
        self._log = SpectralLog()
        self.nonfinite = 0

    def _append(self, made):
        for new in made:
            self._log.append(new)
        for new in made:
            self._count_nonfinite(new)

    def _count_nonfinite(self, new):
        bad = new.rows["frobenius_norm"].isna()
        first_time, self.nonfinite = not self.nonfinite, self.nonfinite + int(bad.sum())
        if bad.any() and first_time:
            first = new.rows[bad].iloc[0]
            warnings.warn(
                f"The {first['quantity']} of layer {first['layer']!r} holds NaN or Inf at step "
                f"{first['step']} (group {first['group']!r}). Its spectrum is recorded as NaN and "
                "training goes on; said once, counted in `model.spectral_logger.nonfinite`.",
                stacklevel=2,
            )


def require_one_replica(strategy):
    """Raise if training is distributed: a mean of spectra is not the spectrum of the gradient.

    Args:
        strategy: `tf.distribute.Strategy`.

    Raises:
        RecordingError: If it has more than one replica.
    """
    if strategy.num_replicas_in_sync > 1:
        raise RecordingError(
            "Spectra can be recorded on one replica only. "
            f"Received: a strategy with {strategy.num_replicas_in_sync} replicas. "
            "Try `compile(…, spectra=None)`, or train without `tf.distribute`."
        )
