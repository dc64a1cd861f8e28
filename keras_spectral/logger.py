"""The in-graph buffer: a metric-style logger whose state is a queue, drained by the host."""

import itertools
import warnings

import numpy as np
import tensorflow as tf

from keras_spectral.errors import RecordingError
from keras_spectral.groups import Membership
from keras_spectral.log import SpectralLog
from keras_spectral.records import encoded
from keras_spectral.solver import Solver
from keras_spectral.spectra.bases import Bases
from keras_spectral.spectra.stacks import layout_for

DEFAULT_BATCH = 32
"""Keras' own batch size, expected where none is given."""

CAPACITY = 64
"""Records that fit into the buffer between two drains, unless more steps run at once."""

CAPACITY_BYTES = 1_000_000
"""Fewer records fit if they are large: about this many bytes, or one."""


class SpectralLogger:
    """Records spectra step by step, like a Keras metric: `update_state`, `result`, `reset_state`.

    `update_state` runs inside the training graph and appends to a queue, so nothing is lost with
    `steps_per_execution > 1` and the host is not waited for. `result` solves what waits there,
    moves it into the log and returns the log.

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
        self._queues = {}
        self._bases = Bases()
        self._solver = Solver()
        self._dequeued = []
        self._record_bytes = CAPACITY_BYTES
        self._membership = Membership.of(None)
        self._sizes = (DEFAULT_BATCH,)

    def begin(self, membership, batch_size):
        """Prepare for examples with other groups.

        Args:
            membership: `Membership` of the examples to come. Only its names, permutations and
                shares are used: the mask travels with the batches.
            batch_size: Expected examples per batch, or `None` if unknown.
        """
        self.result()
        self._membership = membership
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
        room = self._room()
        if self._steps_since_look > max(room, steps) - self._records_seen:
            self._records_seen = self._n_waiting()
            self._steps_since_look = steps
            if self._records_seen + steps > room:
                self.drain()

    def due(self):
        """Return whether the schedule wants the present step: a scalar boolean tensor."""
        return tf.reduce_any(self.settings.every(self.step, self._epoch, self._batch))

    def update_state(self, find, mask, n, due):
        """Record one step, if the schedule says so. Runs inside the graph.

        Args:
            find: Function that returns a dictionary `(layer path, weight name) -> Factors`, in the
                order of the model; what it does is done in recorded steps only.
            mask: 0/1 tensor `[n, g]`, which example is in which group, or `None`.
            n: Scalar integer tensor, the number of examples.
            due: What `due()` returned in this step.
        """
        tf.cond(due, lambda: self._write(find(), mask, n), lambda: None)
        self.step.assign_add(1)
        self._batch.assign_add(1)

    def result(self):
        """Return the log with everything recorded so far.

        Returns:
            The logger's own `SpectralLog`, which goes on growing.
        """
        self.drain()
        self._gather(self._solver.rest(self._membership))
        return self._log

    def reset_state(self):
        """Forget everything recorded. The step count goes on."""
        self.result()
        self._log = SpectralLog()
        self.nonfinite = 0

    def drain(self):
        """Empty the buffer. What was in it is solved beside the steps to come."""
        for (layout, _), queue in self._queues.items():
            for _ in range(int(queue.size())):
                # Kept at once: an interrupt here must not cost what was dequeued before.
                self._dequeued.append((layout, [np.asarray(part) for part in _dequeue(queue)]))
        self._dequeued.sort(key=_step)
        for layout, records in itertools.groupby(self._dequeued, key=lambda pair: pair[0]):
            records = [record for _, record in records]
            self._record_bytes = max(1, sum(part.nbytes for part in records[-1]))
            self._solver.submit(records, layout, self._membership)
        self._dequeued = []
        self._records_seen = 0
        self._gather(self._solver.done())

    def _gather(self, made):
        errors = [new for new in made if isinstance(new, Exception)]
        logs = [new for new in made if not isinstance(new, Exception)]
        for new in logs:
            self._log.append(new)
        for new in logs:
            self._count_nonfinite(new)
        if errors:
            raise RecordingError(
                "Recorded steps must be small enough to be solved; the spectra of some are lost. "
                f"Received: {errors[0]!r}. Try fewer `layers`, or a smaller batch."
            ) from errors[0]

    def _room(self):
        return min(self.capacity, max(1, CAPACITY_BYTES // self._record_bytes))

    def _n_waiting(self):
        return sum(int(queue.size()) for queue in self._queues.values())

    def _write(self, factors, mask, n):
        settings = self.settings
        wanted = set(settings.quantities)
        factors = {name: factor for name, factor in factors.items() if wanted & {*factor.recorded}}
        if not factors:
            return
        layout = layout_for(
            factors, settings.quantities, settings.top_k, settings.method, self._sizes
        )
        parts = list(factors.values())
        record = encoded(layout, self.step, self._epoch, n, parts, mask, self._bases)
        queue = self._queue_for(layout, tuple(tensor.dtype for tensor in record))
        room = tf.debugging.assert_less(
            queue.size(),
            self.capacity,
            "The buffer of spectra is full: call `logger.drain()` at least every "
            f"{self.capacity} records.",
        )
        with tf.control_dependencies([room] if room is not None else []):
            queue.enqueue(record)

    def _queue_for(self, layout, types):
        if (layout, types) not in self._queues:
            with tf.init_scope(), tf.device("CPU:0"):
                self._queues[layout, types] = tf.queue.FIFOQueue(self.capacity, types)
        return self._queues[layout, types]

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


def _dequeue(queue):
    # `queue.dequeue()` takes nearly twice as long, which is much of what a drain costs.
    return tf.raw_ops.QueueDequeueV2(handle=queue.queue_ref, component_types=queue.dtypes)


def _step(pair):
    _, (head, *_) = pair
    return head[0]


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
