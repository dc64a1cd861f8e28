"""Training, watched: what `SpectralModel` adds to `keras.Model`.

`SpectralTraining.train_step` is the one place where training happens: forward under a
`tf.GradientTape`, one backward pass for the weight gradients and all adjoints, the update exactly
as Keras does it, then the record.
"""

import warnings
from typing import Any

import keras
import tensorflow as tf

from keras_spectral.arguments import (
    batch_size,
    bound,
    callbacks_of,
    with_clock,
    with_mask,
    without_mask,
)
from keras_spectral.batches import ungrouped
from keras_spectral.capture.alignment import aligned_sites
from keras_spectral.capture.rule import Backward
from keras_spectral.capture.sites import watched_sites
from keras_spectral.capture.tape import WatchedForward
from keras_spectral.clock import Clock
from keras_spectral.errors import SettingsError
from keras_spectral.introspection import introspect
from keras_spectral.logger import CAPACITY, SpectralLogger, require_one_replica
from keras_spectral.provenance import continued, provenance
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
    _sites = None
    _jitted_update: Any = None

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
        capacity = max(CAPACITY, self.steps_per_execution)
        before = self.spectral_logger or self._past_logger
        logger = None if settings is None else SpectralLogger(settings, capacity, before)
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
        arguments, membership = with_mask(arguments, groups, self.spectral_logger is not None)
        arguments["validation_data"] = without_mask(arguments.get("validation_data"))
        if self.spectral_logger is None:
            return super().fit(**arguments)
        require_one_replica(self.distribute_strategy)
        self.spectral_logger.begin(membership, batch_size(arguments))
        callbacks = callbacks_of(arguments.get("callbacks"))
        arguments["callbacks"] = with_clock(
            arguments.get("callbacks"), Clock(self.spectral_logger), self
        )
        log = self.spectral_logger.result()
        made = provenance(self, self.spectral_logger.settings, x, y, membership)
        log.provenance = continued(log.provenance, made)
        try:
            return super().fit(**arguments)
        finally:
            self.spectral_logger.result()
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
        plain, membership = with_mask(arguments, groups, False)
        result = super().evaluate(**plain)
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

    def train_step(self, data):
        """Train on one batch: forward, backward, update, record.

        Args:
            data: `(x, y, sample_weight)`, where `x` may be a `Grouped`.

        Returns:
            Dictionary of metric values.
        """
        if self.spectral_logger is None:
            return super().train_step(data)
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        x, mask = ungrouped(x)
        if self._sites is None:
            self._sites = self._trainable_sites(x, y, sample_weight)
        due, n = self.spectral_logger.due(), n_examples(x)
        if self.jit_compile:  # spectra stay outside of XLA
            logs, factors = self._jitted_update(x, y, sample_weight, mask, due)
            names = [(site.path, name) for site in self._sites for name, _ in site.weights]
            ordered = {name: factors[name] for name in names if name in factors}
            self.spectral_logger.update_state(lambda: ordered, mask, n, due)
            return logs

        def record(find):
            self.spectral_logger.update_state(find, mask, n, due)

        return self._update(x, y, sample_weight, mask, due, record)[0]

    def _update(self, x, y, sample_weight, mask, due, record=lambda find: find()):
        watched = WatchedForward(self._sites)
        # Forward pass
        with tf.GradientTape() as tape:
            with watched(tape.watch):
                y_pred = self._forward(x)
                loss = self._compute_loss(
                    x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=True
                )
            self._loss_tracker.update_state(loss, sample_weight=n_examples(x))
            unscaled = 1.0
            scale = self.optimizer.scale_loss(unscaled)
            loss = self.optimizer.scale_loss(loss)

        # One backward pass for weight gradients and adjoints
        weights = self.trainable_weights
        gradients = tape.gradient(loss, weights + watched.outputs)
        backward = Backward(
            n_examples(x),
            mask,
            due,
            scale=None if scale is unscaled else scale,
            example_gradients=self.spectral_logger.settings.gradients == "per_example",
            jit=bool(self.jit_compile),
        )
        # Before the update: a family may look at its weights again.
        factors = record(lambda: watched.factors(gradients[len(weights) :], backward))

        # Update weights
        if weights:
            self.optimizer.apply_gradients(zip(gradients[: len(weights)], weights, strict=True))
        else:
            warnings.warn("The model does not have any trainable weights.", stacklevel=2)
        return self.compute_metrics(x, y, y_pred, sample_weight=sample_weight), factors

    def _forward(self, x):
        return self(x, training=True) if self._call_has_training_arg else self(x)

    def test_step(self, data):
        """Evaluate one batch.

        Args:
            data: `(x, y, sample_weight)`, where `x` may be a `Grouped`.

        Returns:
            Dictionary of metric values.
        """
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        return super().test_step((ungrouped(x)[0], y, sample_weight))

    def make_train_function(self, force=False):
        """Build the function that `fit` runs, with spectra outside of XLA.

        Args:
            force: Build it even if it is there.

        Returns:
            As `keras.Model.make_train_function`.
        """
        if self.spectral_logger is None or (self.train_function is not None and not force):
            return super().make_train_function(force)
        jit = self.jit_compile
        self._sites = None
        if jit:
            self._jitted_update = tf.function(self._update, jit_compile=True, reduce_retracing=True)
        self.jit_compile = False
        try:
            super().make_train_function(force=True)
        finally:
            self.jit_compile = jit
        self.train_function = self._draining(self.train_function)

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

    def _trainable_sites(self, x, y, sample_weight):
        if not all(layer.built for layer in self._flatten_layers()):
            self._symbolic_build(data_batch=(x, y, sample_weight))
        trainable = {id(weight) for weight in self.trainable_weights}
        sites = watched_sites(self, self.spectral_logger.settings)
        sites = [s for s in sites if any(id(variable) in trainable for _, variable in s.weights)]
        strict = self.spectral_logger.settings.strict
        return aligned_sites(sites, self._forward, x, strict)

    def _draining(self, step_function):
        def train_function(iterator):
            self.spectral_logger.make_room(self.steps_per_execution)
            return step_function(iterator)

        return train_function


def n_examples(x):
    """Return the number of examples in a batch.

    Args:
        x: Structure of tensors, as a model's `call` receives it.

    Returns:
        Scalar integer tensor.
    """
    return tf.shape(next(leaf for leaf in keras.tree.flatten(x) if leaf is not None))[0]
