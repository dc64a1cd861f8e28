"""The recorder of a model: asks the schedule, passes steps to the solver, appends to the log."""

import warnings

import numpy as np
import pandas as pd

from keras_spectral.capture.verification import Verification
from keras_spectral.errors import RecordingError
from keras_spectral.groups import Membership
from keras_spectral.log import SpectralLog
from keras_spectral.schedules import Budgeted, interval_text
from keras_spectral.solver import Solver, alone

MS_OF_A_MULTIPLICATION = 1.7e-8
"""Approximate milliseconds of one core for a multiplication of a float64 matrix product."""


class SpectralLogger:
    """Records spectra step by step, like a Keras metric: `update_state`, `result`, `reset_state`.

    `update_state` passes the factors of a recorded step to a thread, while training goes on.
    `result` waits for that thread and returns the log.

    Args:
        settings: `Spectra`.
        predecessor: A logger whose log and step count this one continues, or `None`.

    Attributes:
        schedule: Function `(step, epoch, batch) -> bool`.
        step: Batches seen over the whole life of the model.
        epoch: Number of the epoch in the current `fit`.
        batch: Batches seen in this epoch.
        membership: `Membership` of the examples that are recorded.
        verification: `Verification` of the first recorded step of a `fit`.
        nonfinite: Number of recorded spectra that held NaN or Inf so far.
    """

    def __init__(self, settings, predecessor=None):
        self.settings = settings
        self.schedule = _schedule(settings, predecessor)
        self.step = 0 if predecessor is None else predecessor.step
        self.epoch = self.batch = 0
        self.membership = Membership.of(None)
        self.nonfinite = 0 if predecessor is None else predecessor.nonfinite
        self._log = SpectralLog() if predecessor is None else predecessor.result()
        self.verification = Verification(settings.strict)
        self._solver = Solver(settings)
        self._interval_is_new = False

    def begin_epoch(self, epoch, optimizer=None):
        """Start counting batches of an epoch.

        Args:
            epoch: The epoch's number in the current `fit`.
            optimizer: Keras optimizer, or `None`. Its `iterations` include steps of an earlier
                process, as restored by a checkpoint or a loaded model.
        """
        self.epoch, self.batch = epoch, 0
        if optimizer is not None and optimizer.built:
            accumulated = getattr(optimizer, "gradient_accumulation_steps", None) or 1
            iterations = optimizer.iterations  # with accumulation a tensor, else a variable
            iterations = getattr(iterations, "value", iterations)
            self.step = max(self.step, int(iterations.numpy()) * accumulated)

    def is_due(self, steps=1):
        """Return whether any of the next steps is to be recorded.

        Args:
            steps: Number of steps.
        """
        due = self.schedule
        return any(due(self.step + k, self.epoch, self.batch + k) for k in range(steps))

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

    def update_state(self, sites, factors, trained, n, members=None):
        """Record the current step. Its spectra are found in a thread.

        A batch without examples adds no row.

        Args:
            sites: List of `Site`, in the order of the model.
            factors: Dictionary `(layer path, weight name) -> Factors`, in any order.
            trained: The gradients that the loss has, as `trained_gradients` returns them.
            n: Number of examples in the batch.
            members: The result of `members` for the batch.

        Raises:
            UnsupportedLayerError: If a captured gradient is another one, and `strict`.
        """
        if not n or not factors:
            return
        names = [(site.path, name) for site in sites for name, _ in site.weights]
        factors = {name: factors[name] for name in names if name in factors}
        mask = np.zeros((n, 0), bool) if members is None else np.asarray(members, bool)
        factors = self.verification.verified(factors, sites, trained, mask, alone)
        if self.verification.dropped:
            self._log.provenance["not_what_trains"] = sorted(self.verification.dropped)
        self._solver.submit(self.step, self.epoch, factors, mask, self.membership)
        self._append(self._solver.done())

    def result(self):
        """Return the log with everything recorded so far.

        Returns:
            The logger's own `SpectralLog`, to which later steps are appended.
        """
        self._append(self._solver.rest())
        return self._log

    def reset_state(self):
        """Begin a new, empty log. The step count and the interval of a budget go on."""
        schedule = self.result().provenance.get("schedule")
        self._log = SpectralLog(provenance=schedule and {"schedule": schedule})
        self.nonfinite = 0

    def wait(self):
        """Wait until recorded steps are reduced, and those with large statistics solved."""
        self._solver.wait()

    def observe(self, seconds, recorded):
        """Pass the time of a step to the schedule, if it measures times.

        Args:
            seconds: Duration in seconds, until its spectra were found.
            recorded: Whether it was recorded.
        """
        if self.is_timed and self.schedule.observe(seconds, recorded):
            self._log.provenance["schedule"] = self.schedule.facts()
            self._interval_is_new = True

    def new_interval(self):
        """Return a message if an interval was found since the last call, else `None`."""
        if not self._interval_is_new:
            return None
        self._interval_is_new = False
        found, table = self.schedule, self.plan_table()
        if table is None:  # no step had anything to record
            return None
        costly = table.loc[table["ms"].idxmax()]
        share = costly["ms"] / max(table["ms"].sum(), 1e-9)
        return (
            f"Spectra of {interval_text(found.interval)} are recorded: recording one takes "
            f"{1e3 * found.extra:.1f} ms beside {1e3 * found.plain:.1f} ms of a plain step, "
            f"{share:.0%} of it for the {costly['quantity']} of {costly['layer']!r}. "
            "To record more often, try fewer `layers` or `quantities`, or `top_k`; to record "
            "every step whatever it takes, `spectra=1`."
        )

    def plan_table(self):
        """Return how the spectra of the last recorded step were found, or `None` before the first.

        Returns:
            DataFrame, see `SpectralModel.spectral_plan`.
        """
        self.result()
        plan = self._solver.plan
        if plan is None:
            return None
        columns = ["layer", "weight", "quantity", "method", "where", "ms", "reason"]
        rows = [
            (
                *c.weight,
                c.quantity,
                c.method,
                c.where,
                round(MS_OF_A_MULTIPLICATION * c.cost, 3),
                c.reason,
            )
            for c in plan.choices
        ]
        return pd.DataFrame(rows, columns=columns)

    @property
    def is_timed(self):
        """Whether the schedule is still measuring how long steps take."""
        return isinstance(self.schedule, Budgeted) and self.schedule.interval is None

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


def _schedule(settings, predecessor):
    """Return the schedule of a recording, the predecessor's if settings did not change."""
    if predecessor is not None and predecessor.settings.every == settings.every:
        return predecessor.schedule
    started = getattr(settings.every, "started", None)
    return settings.every if started is None else started()


def require_one_replica(strategy):
    """Raise if training has several replicas: a mean of spectra is not that of the gradient.

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
