"""Training, watched: what `SpectralModel` adds to `keras.Model`.

The host chooses. Before every execution it asks the schedule. If no step is due, the function that
a plain `keras.Model` compiles runs on the plain batch. If one is, another compiled function runs a
single step and returns, besides what Keras wants to know, the record of that step.
"""

import contextlib
import functools
import warnings
from typing import Any

import keras
import tensorflow as tf

from keras_spectral.arguments import bound, callbacks_of, with_callback
from keras_spectral.batches import grouped_inputs, plain_inputs, without_groups
from keras_spectral.capture.alignment import aligned_sites
from keras_spectral.capture.calls import Backward
from keras_spectral.capture.sites import require_known_layers, watched_sites
from keras_spectral.capture.watching import watched_pass
from keras_spectral.errors import SettingsError, UnsupportedLayerError
from keras_spectral.groups import Membership
from keras_spectral.introspection import introspect
from keras_spectral.provenance import continued, provenance
from keras_spectral.recorder import SpectralLogger, require_one_replica
from keras_spectral.settings import Spectra


class SpectralTraining:
    """What a `keras.Model` gains: `compile(spectra=)`, `fit(groups=)` and a watched `train_step`.

    Attributes:
        spectral_logger: The `SpectralLogger`, or `None` if the model records nothing.
        evaluation_log: The `SpectralLog` of the last `evaluate` with groups, or `None`.
    """

    spectral_logger: Any = None
    _past_logger: Any = None
    evaluation_log = None
    _recorded_steps: Any = None

    def compile(self, *args, spectra=1, **kwargs):
        """Configure the model for training as `keras.Model.compile` does, and what to record.

        Args:
            *args: As in `keras.Model.compile`.
            spectra: A `Spectra`, an integer `n` (every n-th step), a schedule, or `None` for a
                plain model. What was recorded before is kept.
            **kwargs: As in `keras.Model.compile`.

        Raises:
            SettingsError: If `spectra` is none of these.
        """
        settings = Spectra.of(spectra)
        super().compile(*args, **kwargs)
        before = self.spectral_logger or self._past_logger
        logger = None if settings is None else SpectralLogger(settings, before)
        self.spectral_logger = logger
        self._past_logger = before if logger is None else None  # for a later `compile`

    @property
    def spectral_log(self):
        """The `SpectralLog` of everything recorded in training so far."""
        if self.spectral_logger is None:
            raise SettingsError(
                "`spectra` must be set to record spectra. Received: a model compiled with "
                "`spectra=None`, or not compiled. Try `model.compile(…, spectra=1)`."
            )
        return self.spectral_logger.result()

    def fit(self, x=None, y=None, *args, groups=None, **kwargs):
        """Train the model as `keras.Model.fit` does, and record spectra per group.

        Args:
            x: As in `keras.Model.fit`; a dataset from `with_groups` brings its own groups.
            y: As in `keras.Model.fit`.
            *args: As in `keras.Model.fit`.
            groups: One label per example; columns for several factors; a boolean array `[n, g]`
                for overlapping groups; or `permutations(…)`. Missing labels belong to no group.
            **kwargs: As in `keras.Model.fit`.

        Returns:
            The Keras `History`.

        Raises:
            GroupsError: If `groups` does not fit `x`.
            RecordingError: If training is distributed over several replicas.
        """
        arguments = bound(keras.Model.fit, self, x, y, *args, **kwargs)
        arguments["validation_data"] = plain_inputs(arguments.get("validation_data"))
        grouped, membership = grouped_inputs(arguments.get("x"), groups)
        logger = self.spectral_logger
        if logger is None:
            return super().fit(**{**arguments, "x": plain_inputs(arguments.get("x"))})
        require_one_replica(self.distribute_strategy)
        if self.built:
            require_known_layers(self, logger.settings)
        logger.result()
        logger.membership = membership
        callbacks = callbacks_of(arguments.get("callbacks"))
        arguments["callbacks"] = with_callback(arguments.get("callbacks"), _Epochs(logger), self)
        log = logger.result()
        made = provenance(self, logger.settings, x, y, membership)
        log.provenance = continued(log.provenance, made)
        try:
            return super().fit(**{**arguments, "x": grouped})
        finally:
            logger.result()
            logger.membership = Membership.of(None)
            for callback in callbacks:
                getattr(callback, "flush_spectra", lambda: None)()

    def evaluate(self, x=None, y=None, *args, groups=None, **kwargs):
        """Evaluate the model as `keras.Model.evaluate` does.

        With groups, the spectra of the evaluated batches are kept in `evaluation_log`, as
        `introspect` gives them.

        Args:
            x: As in `keras.Model.evaluate`; a dataset from `with_groups` brings its own groups.
            y: As in `keras.Model.evaluate`.
            *args: As in `keras.Model.evaluate`.
            groups: As in `fit`.
            **kwargs: As in `keras.Model.evaluate`.

        Returns:
            What `keras.Model.evaluate` returns.

        Raises:
            GroupsError: If `groups` does not fit `x`.
        """
        arguments = bound(keras.Model.evaluate, self, x, y, *args, **kwargs)
        _, membership = grouped_inputs(x, groups)
        result = super().evaluate(**{**arguments, "x": plain_inputs(x)})
        if membership.names and self.spectral_logger is not None:
            self.evaluation_log = introspect(
                self,
                x,
                y,
                groups=groups,
                sample_weight=arguments.get("sample_weight"),
                batch_size=arguments.get("batch_size"),
                steps=arguments.get("steps"),
            )
        return result

    def predict(self, x, *args, **kwargs):
        """Predict as `keras.Model.predict` does.

        Args:
            x: As in `keras.Model.predict`; a dataset from `with_groups` is taken without groups.
            *args: As in `keras.Model.predict`.
            **kwargs: As in `keras.Model.predict`.

        Returns:
            What `keras.Model.predict` returns.
        """
        return super().predict(plain_inputs(x), *args, **kwargs)

    def train_step(self, data):
        """Train on one batch: forward, backward, update. Watched where the step is recorded.

        Args:
            data: Batch as in `keras.Model.train_step`.

        Returns:
            Dictionary of metric values.
        """
        steps = self._recorded_steps
        if steps is None or not steps.is_running:
            return super().train_step(data)
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        scale = None

        # Forward pass
        def forward():
            nonlocal scale, y_pred
            y_pred = self._forward(x)
            loss = self._compute_loss(
                x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=True
            )
            self._loss_tracker.update_state(loss, sample_weight=n_examples(x))
            one = 1.0
            scale = self.optimizer.scale_loss(one)
            scale = None if scale is one else scale
            return self.optimizer.scale_loss(loss)

        # One backward pass for weight gradients and adjoints
        y_pred = None
        sites = steps.sites(x, y, sample_weight)  # builds the model
        weights = self.trainable_weights
        watched = watched_pass(sites, forward, weights, per_example=steps.per_example)
        # Before the update: a family may look at its weights again.
        steps.take(watched, n_examples(x), scale)

        # Update weights
        if weights:
            self.optimizer.apply_gradients(zip(watched.gradients, weights, strict=True))
        else:
            warnings.warn("The model does not have any trainable weights.", stacklevel=2)
        return self.compute_metrics(x, y, y_pred, sample_weight=sample_weight)

    def _forward(self, x):
        return self(x, training=True) if self._call_has_training_arg else self(x)

    def make_train_function(self, force=False):
        """Build what `fit` runs: a plain function, and one that records.

        Args:
            force: Build it even if it is there.

        Returns:
            As `keras.Model.make_train_function`.
        """
        if self.spectral_logger is None or (self.train_function is not None and not force):
            return super().make_train_function(force)
        self._recorded_steps = RecordedSteps(self)
        self.train_function = HostChoice(self, self._recorded_steps)

    def make_test_function(self, force=False):
        """Build what `evaluate` runs: `fit` may give it a part of inputs that carry groups.

        Args:
            force: Build it even if it is there.

        Returns:
            As `keras.Model.make_test_function`.
        """
        if self.spectral_logger is None or (self.test_function is not None and not force):
            return super().make_test_function(force)
        self.test_function = self._make_function(lambda data: self.test_step(_plain_batch(data)))

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        if iterator is not None:  # Keras takes the first batch of it
            iterator = ((begin, end, map(_plain_batch, it)) for begin, end, it in iterator)
        super()._maybe_symbolic_build(iterator, data_batch)

    def get_compile_config(self):
        """Return what `compile` was given, `spectra` included, for saving."""
        config = super().get_compile_config()
        if not config:
            return config
        try:
            logger = self.spectral_logger
            spectra = None if logger is None else logger.settings.get_config()
        except SettingsError as error:
            warnings.warn(f"{error} The loaded model will record nothing.", stacklevel=2)
            spectra = None
        return {**config, "spectra": spectra}

    def compile_from_config(self, config):
        """Compile the model as `get_compile_config` described.

        Args:
            config: Dictionary.
        """
        plain = {key: value for key, value in config.items() if key != "spectra"}
        spectra = config.get("spectra")
        self.compile(
            **keras.saving.deserialize_keras_object(plain),
            spectra=None if spectra is None else Spectra.from_config(spectra),
        )
        if self.optimizer is not None and self.built:
            self.optimizer.build(self.trainable_variables)


class HostChoice:
    """What `fit` calls for each execution: the host chooses which compiled function runs.

    Args:
        model: `SpectralModel`.
        recorded: `RecordedSteps`.
    """

    def __init__(self, model, recorded):
        self._model = model
        self._recorded = recorded
        self._counter: Any = None  # of the steps that several in one execution were in fact

    def __call__(self, iterator):
        """Run as many steps as an execution has, and return what Keras' function returns.

        Args:
            iterator: What Keras gives: an iterator of a dataset, or a generator of one batch.

        Returns:
            Dictionary of metric values.
        """
        logger, steps = self._model.spectral_logger, self._model.steps_per_execution
        is_dataset = isinstance(iterator, tf.data.Iterator | tf.distribute.DistributedIterator)
        if is_dataset and not self._recorded.must_be_checked and not logger.is_due(steps):
            plain = self._plain
            if self._counter is not None:
                self._counter.assign(0)
            logs = plain(iterator)
            # The last execution of an epoch may be shorter.
            logger.advance(steps if self._counter is None else int(self._counter))
            return logs
        spec = iterator.element_spec if is_dataset else None
        return self._one_by_one(iterator, steps, without_groups(spec)[0])

    def _one_by_one(self, iterator, steps, spec):
        logger, logs = self._model.spectral_logger, None
        for step in range(steps):
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
            logger.advance()
        return logs

    @functools.cached_property
    def _plain(self):
        model = self._model
        if model.steps_per_execution > 1:
            self._counter = tf.Variable(0, dtype=tf.int64, trainable=False)

        def plain_step(data):
            if self._counter is not None:
                self._counter.assign_add(1)
            return model.train_step(_plain_batch(data))

        return model._make_function(plain_step)


class RecordedSteps:
    """The compiled function of one recorded step, and what is watched in it.

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
        """Run one step, hand its record over, and return what Keras wants to know.

        Args:
            batch: Plain batch.
            index: Integer tensor `[n]`, the number of each example, or `None`.
            spec: Structure of `TensorSpec` of all batches, or `None` if only this one is known.

        Returns:
            Dictionary of metric values.
        """
        logger = self._model.spectral_logger
        members = logger.members(index)
        given = None if members is None else members.astype("uint8")
        found = self._run(batch, given, spec)
        if "factors" not in found:
            self._report_bypassed()
            return found["logs"]
        names = [(site.path, name) for site in self._sites for name, _ in site.weights]
        factors = {name: found["factors"][name] for name in names if name in found["factors"]}
        logger.update_state(factors, int(found["n"]), members)
        return found["logs"]

    @property
    def is_running(self):
        """Whether a recorded step is being traced, or run eagerly."""
        return self._taken is not None

    @property
    def per_example(self):
        """Whether gradients are found by differentiating every example."""
        return self._model.spectral_logger.settings.gradients == "per_example"

    @property
    def must_be_checked(self):
        """Whether `strict` asks for `sites` before any step is run, also one that is not due."""
        return self._sites is None and self._model.spectral_logger.settings.strict

    def sites(self, x, y, sample_weight):
        """Return the sites to watch, found out when the first step is traced.

        Args:
            x: Inputs.
            y: Targets.
            sample_weight: Weights, or `None`.
        """
        if self._sites is None:
            self._sites = self._trainable_sites(x, y, sample_weight)
        return self._sites

    def take(self, watched, n, scale):
        """Take what a recorded step has found.

        Args:
            watched: `WatchedPass`.
            n: Scalar integer tensor, the number of examples.
            scale: Factor by which the loss was multiplied, or `None`.
        """
        factors = watched.factors(Backward(n, self._members, scale))
        self._taken.update(n=n, factors=factors)

    def _run(self, batch, members, spec):
        if self._model.run_eagerly:
            return self._step(batch, members)
        batch, members = (keras.tree.map_structure(_tensor, part) for part in (batch, members))
        if spec is None:
            return self._compiled(batch, members)
        # Traced as Keras traces the plain function: another shape, known or unknown, is another
        # graph, which may round differently.
        key = repr((spec, None if members is None else members.shape[1]))
        if key not in self._functions:
            groups = None if members is None else tf.TensorSpec([None, members.shape[1]], tf.uint8)
            self._functions[key] = self._compiled.get_concrete_function(spec, groups)
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


class _Epochs(keras.callbacks.Callback):
    """Keras tells callbacks alone which epoch it is in, and takes named summaries from them.

    Args:
        logger: `SpectralLogger`.
    """

    def __init__(self, logger):
        super().__init__()
        self._logger = logger
        self._seen = len(logger.result())

    def on_epoch_begin(self, epoch, logs=None):
        """Start an epoch, after callbacks that restore an interrupted training had their turn."""
        self._logger.begin_epoch(epoch, getattr(self.model, "optimizer", None))

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


def n_examples(x):
    """Return the number of examples in a batch.

    Args:
        x: Structure of tensors, as a model's `call` receives it.

    Returns:
        Scalar integer tensor.
    """
    return tf.shape(next(leaf for leaf in keras.tree.flatten(x) if leaf is not None))[0]


def _tensor(value):
    if value is None or isinstance(value, tf.experimental.Optional):  # as Keras takes these
        return None
    return value if tf.is_tensor(value) else tf.convert_to_tensor(value)


def _plain_batch(data):
    return without_groups(data)[0]
