"""Training: what `SpectralModel` adds to `keras.Model`."""

import warnings
from typing import Any

import keras
import tensorflow as tf

from keras_spectral.arguments import bound, callbacks_of, with_callback
from keras_spectral.batches import grouped_inputs, plain_batch, plain_inputs
from keras_spectral.capture.sites import require_known_layers
from keras_spectral.capture.watching import watched_pass
from keras_spectral.epochs import EpochTeller
from keras_spectral.errors import RecordingError, SettingsError
from keras_spectral.execution import HostChoice, RecordedSteps
from keras_spectral.groups import Membership
from keras_spectral.introspection import introspect
from keras_spectral.provenance import continued, provenance
from keras_spectral.recorder import SpectralLogger, require_one_replica
from keras_spectral.settings import Spectra


class SpectralTraining:
    """Mixin for `keras.Model`: `compile(spectra=)`, `fit(groups=)` and a watched `train_step`.

    Attributes:
        spectral_logger: The `SpectralLogger`, or `None` if the model records nothing.
        evaluation_log: The `SpectralLog` of the last `evaluate` with groups, or `None`.
    """

    spectral_logger: Any = None
    _past_logger: Any = None
    evaluation_log = None
    _recorded_steps: Any = None

    def compile(self, *args, spectra="auto", **kwargs):
        """Configure training as `keras.Model.compile` does, and what is recorded.

        Args:
            *args: As in `keras.Model.compile`.
            spectra: A `Spectra`, an integer `n` (every n-th step), a schedule, `None` for a plain
                model, or `"auto"`, the schedule `budget(0.1)`: the first steps are timed, then
                recording takes at most a tenth of the time of plain training. Spectra recorded
                before stay in the log.
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

    def spectral_plan(self, print_fn=print):
        """Print how the spectra of the last recorded step were found, and the expected time.

        Args:
            print_fn: Function that receives the text; `None` prints nothing.

        Returns:
            DataFrame with one row per weight and quantity, in the order of the log: `layer`,
            `weight`, `quantity`, `method`, `where` (the device of the products), `ms` (expected
            milliseconds on one core) and `reason`.

        Raises:
            RecordingError: If no step was recorded yet, so that shapes are unknown.
        """
        table = None if self.spectral_logger is None else self.spectral_logger.plan_table()
        if table is None:
            raise RecordingError(
                "`spectral_plan` must follow a recorded step, whose shapes it is made of. "
                "Received: a model that has recorded none. Try `model.fit` on a few batches."
            )
        if print_fn is not None:
            print_fn(table.to_string(index=False))
        return table

    def fit(self, x=None, y=None, *args, groups=None, **kwargs):
        """Train the model as `keras.Model.fit` does, and record spectra per group.

        Args:
            x: As in `keras.Model.fit`; a dataset from `with_groups` contains its groups.
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
        logger.verification.begin()
        callbacks = callbacks_of(arguments.get("callbacks"))
        arguments["callbacks"] = with_callback(
            arguments.get("callbacks"), EpochTeller(logger), self
        )
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

        With groups, the spectra of the evaluated batches are stored in `evaluation_log`, as
        `introspect` returns them.

        Args:
            x: As in `keras.Model.evaluate`; a dataset from `with_groups` contains its groups.
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
            x: As in `keras.Model.predict`; groups of a dataset from `with_groups` are ignored.
            *args: As in `keras.Model.predict`.
            **kwargs: As in `keras.Model.predict`.

        Returns:
            What `keras.Model.predict` returns.
        """
        return super().predict(plain_inputs(x), *args, **kwargs)

    def train_step(self, data):
        """Train on one batch: forward, backward, update. Layers are watched in recorded steps only.

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
        # Before the update: a rule may read its weights.
        steps.take(watched, weights, n_examples(x), scale)

        # Update weights
        if weights:
            self.optimizer.apply_gradients(zip(watched.gradients, weights, strict=True))
        else:
            warnings.warn("The model does not have any trainable weights.", stacklevel=2)
        return self.compute_metrics(x, y, y_pred, sample_weight=sample_weight)

    def _forward(self, x):
        return self(x, training=True) if self._call_has_training_arg else self(x)

    def make_train_function(self, force=False):
        """Build the functions that `fit` runs: a plain one, and one for recorded steps.

        Args:
            force: Rebuild it if it exists.

        Returns:
            As `keras.Model.make_train_function`.
        """
        if self.spectral_logger is None or (self.train_function is not None and not force):
            return super().make_train_function(force)
        self._recorded_steps = RecordedSteps(self)
        self.train_function = HostChoice(self, self._recorded_steps)

    def make_test_function(self, force=False):
        """Build the function that `evaluate` runs; `validation_split` may pass it groups.

        Args:
            force: Rebuild it if it exists.

        Returns:
            As `keras.Model.make_test_function`.
        """
        if self.spectral_logger is None or (self.test_function is not None and not force):
            return super().make_test_function(force)
        self.test_function = self._make_function(lambda data: self.test_step(plain_batch(data)))

    def _maybe_symbolic_build(self, iterator=None, data_batch=None):
        if iterator is not None:  # Keras takes the first batch of it
            iterator = ((begin, end, map(plain_batch, it)) for begin, end, it in iterator)
        super()._maybe_symbolic_build(iterator, data_batch)

    def get_compile_config(self):
        """Return the arguments of `compile`, `spectra` included, for saving."""
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


def n_examples(x):
    """Return the number of examples in a batch.

    Args:
        x: Structure of tensors, as a model's `call` receives it.

    Returns:
        Scalar integer tensor.
    """
    return tf.shape(next(leaf for leaf in keras.tree.flatten(x) if leaf is not None))[0]
