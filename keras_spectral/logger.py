"""The in-graph buffer: a metric-style logger whose state is variables, drained by the host."""

import warnings

import tensorflow as tf

from keras_spectral.errors import RecordingError
from keras_spectral.log import SpectralLog
from keras_spectral.records import Layout, decoded, encoded
from keras_spectral.spectra.groups import Membership
from keras_spectral.spectra.rows import group_rows

DEFAULT_BATCH = 32
"""Keras' own batch size, expected where none is given."""

CAPACITY = 64
"""Records that fit into the buffer between two drains, unless more steps run at once."""

CAPACITY_SPECTRA = 2048
"""Fewer records fit if there are many groups: about this many spectra of each matrix."""


class SpectralLogger:
    """Records spectra step by step, like a Keras metric: `update_state`, `result`, `reset_state`.

    `update_state` runs inside the training graph and writes to variables, so nothing is lost with
    `steps_per_execution > 1` and the host is not waited for. `result` empties the buffer into the
    log and returns the log.

    Args:
        settings: `Spectra`.
        capacity: Number of records that fit into the buffer.
        predecessor: A logger whose log and step count this one continues, or `None`.

    Attributes:
        step: int64 variable, batches seen over the whole life of the model.
        nonfinite: Number of recorded spectra that held NaN or Inf so far.
    """

    def __init__(self, settings, capacity=CAPACITY, predecessor=None):
        self.settings = settings
        self.capacity = capacity
        self.nonfinite = 0 if predecessor is None else predecessor.nonfinite
        self._log = SpectralLog() if predecessor is None else predecessor.result()
        self._steps_since_look = 0
        self._records_seen = 0
        first_step = 0 if predecessor is None else predecessor.step
        with tf.init_scope(), tf.device("CPU:0"):
            self.step = tf.Variable(first_step, dtype=tf.int64, trainable=False, name="step")
            self._epoch = tf.Variable(0, dtype=tf.int64, trainable=False, name="epoch")
            self._batch = tf.Variable(0, dtype=tf.int64, trainable=False, name="batch")
            self._records = tf.Variable(0, dtype=tf.int64, trainable=False, name="records")
            self._integers = _vector(tf.int64, "integers")
            self._numbers = _vector(tf.float64, "numbers")
        self._layout = Layout([], settings.quantities, settings.top_k, Membership.of(None))
        self._sizes = (DEFAULT_BATCH,)

    def begin(self, membership, batch_size):
        """Prepare for examples with other groups.

        Args:
            membership: `Membership` of the examples to come. Only its names, relabelings and
                shares are used: the mask travels with the batches.
            batch_size: Expected examples per batch, or `None` if unknown.
        """
        self.drain()
        self._layout = self._layout._replace(membership=membership)
        n = batch_size or DEFAULT_BATCH
        known = len(membership) > 0
        shares = membership.mask.mean(axis=0) if known else [0.5] * len(membership.names)
        self._sizes = (n, *(n * float(share) for share in shares))

    def begin_epoch(self, epoch):
        """Start counting batches of an epoch.

        Args:
            epoch: The epoch's number in the current `fit`.
        """
        self._epoch.assign(epoch)
        self._batch.assign(0)

    def catch_up(self, optimizer):
        """Take the step count over from an optimizer that has trained before this process.

        Args:
            optimizer: Keras optimizer, whose `iterations` a checkpoint or a loaded model restores.
        """
        if optimizer is not None and optimizer.built:
            accumulated = getattr(optimizer, "gradient_accumulation_steps", None) or 1
            self.step.assign(tf.maximum(self.step, int(optimizer.iterations) * accumulated))

    def make_room(self, steps):
        """Drain if the steps to come might not fit. Called by the host before it runs them.

        Args:
            steps: Number of steps to come.
        """
        self._steps_since_look += steps
        groups = 1 + len(self._layout.membership.names)
        room = max(min(self.capacity, CAPACITY_SPECTRA // groups), steps)
        if self._steps_since_look > room - self._records_seen:
            self._records_seen = int(self._records)
            self._steps_since_look = steps
            if self._records_seen + steps > room:
                self.drain()

    def update_state(self, factors, mask, n):
        """Record one step, if the schedule says so. Runs inside the graph.

        Args:
            factors: Dictionary `(layer path, weight name) -> Factors`, in the order of the model.
            mask: 0/1 tensor `[n, g]`, which example is in which group, or `None`.
            n: Scalar integer tensor, the number of examples.
        """
        names = list(factors)
        weights = [(*name, *factors[name].widths) for name in names]
        self._layout = self._layout._replace(weights=weights)
        if names:
            due = tf.reduce_any(self.settings.every(self.step, self._epoch, self._batch))
            tf.cond(due, lambda: self._write(list(factors.values()), mask, n), lambda: None)
        self.step.assign_add(1)
        self._batch.assign_add(1)

    def result(self):
        """Return the log with everything recorded so far.

        Returns:
            The logger's own `SpectralLog`, which goes on growing.
        """
        self.drain()
        return self._log

    def reset_state(self):
        """Forget everything recorded. The step count goes on."""
        self.drain()
        self._log = SpectralLog()
        self.nonfinite = 0

    def drain(self):
        """Move the buffer's records into the log, leaving it empty."""
        if not int(self._records):
            return
        new = decoded(self._integers.numpy(), self._numbers.numpy(), self._layout)
        self._records.assign(0)
        self._records_seen = 0
        self._integers.assign(tf.zeros([0], tf.int64))
        self._numbers.assign(tf.zeros([0], tf.float64))
        self._count_nonfinite(new)
        self._log.append(new)

    def _write(self, factors, mask, n):
        room = tf.debugging.assert_less(
            self._records,
            tf.constant(self.capacity, tf.int64),
            "The buffer of spectra is full: call `logger.drain()` at least every "
            f"{self.capacity} records.",
        )
        with tf.control_dependencies([room] if room is not None else []):
            rows = None if mask is None or mask.shape[1] == 0 else group_rows(mask)
            integers, numbers, stacks = encoded(factors, rows, n, self.settings, self._sizes)
        self._layout = self._layout._replace(stacks=stacks)
        head = tf.stack([self.step.read_value(), self._epoch.read_value()])
        self._integers.assign(tf.concat([self._integers, head, integers], 0))
        self._numbers.assign(tf.concat([self._numbers, numbers], 0))
        self._records.assign_add(1)

    def _count_nonfinite(self, new):
        bad = new.rows["frobenius_norm"].isna()
        if bad.any() and not self.nonfinite:
            first = new.rows[bad].iloc[0]
            warnings.warn(
                f"The {first['quantity']} of layer {first['layer']!r} holds NaN or Inf at step "
                f"{first['step']} (group {first['group']!r}). Its spectrum is recorded as NaN and "
                "training goes on; said once, counted in `model.spectral_logger.nonfinite`.",
                stacklevel=2,
            )
        self.nonfinite += int(bad.sum())


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


def _vector(dtype, name):
    empty = tf.zeros([0], dtype)
    return tf.Variable(empty, shape=[None], trainable=False, name=name)
