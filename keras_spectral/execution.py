"""The host chooses: before every execution it asks the schedule which function runs.

If no step is due, the function that a plain `keras.Model` compiles runs on the plain batch. If a
step is due, another compiled function runs it and returns the factors besides Keras' logs. Both
functions are built when they are first needed.
"""

import contextlib
import functools
import time
import warnings
import weakref
from typing import Any

import keras
import tensorflow as tf

from keras_spectral.batches import plain_batch, without_groups
from keras_spectral.capture.alignment import aligned_sites
from keras_spectral.capture.calls import Backward
from keras_spectral.capture.sites import watched_sites
from keras_spectral.capture.verification import trained_gradients
from keras_spectral.errors import UnsupportedLayerError


class HostChoice:
    """The function that `fit` calls for each execution.

    Args:
        model: `SpectralModel`.
        recorded: `RecordedSteps`.
    """

    def __init__(self, model, recorded):
        self._model = model
        self._recorded = recorded
        self._counter: Any = None  # of the steps of an execution, which may be cut short
        self._iterator: Any = None
        self._spec_of_it: Any = None

    def __call__(self, iterator):
        """Run the steps of one execution, as Keras' function does.

        Args:
            iterator: The argument that Keras passes: an iterator of a dataset, or a generator of
                one batch.

        Returns:
            Dictionary of metric values.
        """
        logger, steps = self._model.spectral_logger, self._model.steps_per_execution
        is_dataset = isinstance(iterator, tf.data.Iterator | tf.distribute.DistributedIterator)
        if is_dataset and not self._recorded.must_be_checked and not logger.is_due(steps):
            plain = self._plain
            if self._counter is not None:
                self._counter.assign(0)
            begin = self._begin()
            logs = plain(iterator)
            self._report(begin, recorded=False, steps=self._steps_run())
            logger.advance(self._steps_run())
            return logs
        return self._one_by_one(iterator, steps, self._spec(iterator) if is_dataset else None)

    def _one_by_one(self, iterator, steps, spec):
        logger, logs = self._model.spectral_logger, None
        for step in range(steps):
            begin = self._begin()
            try:
                data = next(iterator)
            except (StopIteration, tf.errors.OutOfRangeError):
                if step == 0:
                    raise
                break
            batch, index = without_groups(data)
            if self._recorded.must_be_checked:
                self._recorded.sites(*keras.utils.unpack_x_y_sample_weight(batch))
            due = logger.is_due()
            logs = self._recorded(batch, index, spec) if due else self._plain(iter([batch]))
            self._report(begin, due)
            logger.advance()
        return logs

    def _steps_run(self):
        """Return the steps of the last execution; the last one of an epoch may be shorter."""
        return 1 if self._counter is None else int(self._counter)

    def _begin(self):
        """Return the time, if the schedule measures times; steps include waiting for their data."""
        return time.perf_counter() if self._model.spectral_logger.is_timed else None

    def _report(self, begin, recorded, steps=1):
        """Report the time of a step, its spectra included, to a schedule that measures times."""
        if begin is None:
            return
        logger = self._model.spectral_logger
        tf.test.experimental.sync_devices()
        if recorded:
            logger.wait()
        logger.observe((time.perf_counter() - begin) / steps, recorded)

    def _spec(self, iterator):
        """Return `(spec, key)` of the plain batches, cached for the last iterator."""
        if self._iterator is None or self._iterator() is not iterator:
            spec = without_groups(iterator.element_spec)[0]
            self._iterator, self._spec_of_it = weakref.ref(iterator), (spec, repr(spec))
        return self._spec_of_it

    @functools.cached_property
    def _plain(self):
        model = self._model
        if model.steps_per_execution > 1:
            self._counter = tf.Variable(0, dtype=tf.int64, trainable=False)

        def plain_step(data):
            if self._counter is not None:
                self._counter.assign_add(1)
            return model.train_step(plain_batch(data))

        return model._make_function(plain_step)


class RecordedSteps:
    """The compiled function of a recorded step, and the sites that it watches.

    Args:
        model: `SpectralModel`.
    """

    def __init__(self, model):
        self._model = model
        self._sites: Any = None
        self._members: Any = None
        self._taken: Any = None
        self._bypass_reported = False
        self._functions = {}

    def __call__(self, batch, index, spec=None):
        """Run one step, pass its factors to the recorder, and return the metrics.

        Args:
            batch: Plain batch.
            index: Integer tensor `[n]`, the number of each example, or `None`.
            spec: Structure of `TensorSpec` of all batches of the dataset and a text that identifies
                it, or `None` if there is only this batch.

        Returns:
            Dictionary of metric values.
        """
        logger = self._model.spectral_logger
        members = logger.members(index)
        given = None if members is None else tf.constant(members, tf.uint8)
        found = self._run(batch, given, spec)
        if "factors" not in found:
            self._report_bypassed()
            return found["logs"]
        factors, trained, n = found["factors"], found["trained"], int(found["n"])
        logger.update_state(self._sites, factors, trained, n, members)
        return found["logs"]

    @property
    def is_running(self):
        """Whether a recorded step is being traced, or run eagerly."""
        return self._taken is not None

    @property
    def per_example(self):
        """Whether gradients are found by differentiation of every example."""
        return self._model.spectral_logger.settings.gradients == "per_example"

    @property
    def must_be_checked(self):
        """Whether `strict` requires `sites` before the first step, even if it is not due."""
        return self._sites is None and self._model.spectral_logger.settings.strict

    def sites(self, x, y, sample_weight):
        """Return the sites to watch, which are determined once.

        Args:
            x: Inputs.
            y: Targets.
            sample_weight: Weights, or `None`.
        """
        if self._sites is None:
            self._sites = self._trainable_sites(x, y, sample_weight)
        return self._sites

    def take(self, watched, weights, n, scale):
        """Store the factors and gradients of a recorded step, to be returned from it.

        Args:
            watched: `WatchedPass`.
            weights: List of the variables that are trained.
            n: Scalar integer tensor, the number of examples.
            scale: Factor by which the loss was multiplied, or `None`.
        """
        factors = watched.factors(Backward(n, self._members, scale))
        trained = trained_gradients(self._sites, weights, watched.gradients, scale)
        self._taken.update(n=n, factors=factors, trained=trained)

    def _run(self, batch, members, spec):
        if self._model.run_eagerly:
            return self._step(batch, members)
        batch = keras.tree.map_structure(_tensor, batch)
        if spec is None:
            return self._compiled(batch, members)
        # Traced with the spec that Keras uses for the plain function: a graph for other static
        # shapes may be optimised, and so rounded, differently.
        structure, text = spec
        key = text, None if members is None else members.shape[1]
        if key not in self._functions:
            groups = None if members is None else tf.TensorSpec([None, members.shape[1]], tf.uint8)
            self._functions[key] = self._compiled.get_concrete_function(structure, groups)
        return self._functions[key](batch, members)

    @functools.cached_property
    def _compiled(self):
        jit = self._model.jit_compile
        return tf.function(self._step, reduce_retracing=True, jit_compile=jit, autograph=False)

    def _step(self, batch, members):
        return self._model.distribute_strategy.run(self._watched_step, args=(batch, members))

    def _watched_step(self, batch, members):
        with self._running(members) as taken:
            logs = self._model.train_step(batch)
        return {"logs": logs, **taken}

    @contextlib.contextmanager
    def _running(self, members):
        self._members, self._taken = members, {}
        try:
            yield self._taken
        finally:
            self._members = self._taken = None

    def _trainable_sites(self, x, y, sample_weight):
        model = self._model
        if not all(layer.built for layer in model._flatten_layers()):
            model._symbolic_build(data_batch=(x, y, sample_weight))
        settings = model.spectral_logger.settings
        trainable = {id(weight) for weight in model.trainable_weights}
        sites = watched_sites(model, settings)
        sites = [s for s in sites if any(id(variable) in trainable for _, variable in s.weights)]
        return aligned_sites(sites, model._forward, x, settings.strict)

    def _report_bypassed(self):
        if self._bypass_reported:
            return
        self._bypass_reported = True
        message = (
            "`train_step` must call `super().train_step(data)` for its steps to be recorded. "
            f"Received: {type(self._model).__name__}, whose `train_step` does not."
        )
        if self._model.spectral_logger.settings.strict:
            raise UnsupportedLayerError(f"{message} Try overriding `compute_loss` instead.")
        warnings.warn(f"{message} Nothing is recorded.", stacklevel=2)


def _tensor(value):
    if isinstance(value, tf.Tensor):
        return value
    if value is None or isinstance(value, tf.experimental.Optional):  # as in Keras
        return None
    return value if tf.is_tensor(value) else tf.convert_to_tensor(value)
