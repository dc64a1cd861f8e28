"""Spectra of a trained model on given data: trains nothing."""

import contextlib
import dataclasses

import keras
import numpy as np
import tensorflow as tf

from keras_spectral.batches import Grouped, grouped_dataset, ungrouped
from keras_spectral.capture.alignment import aligned_sites
from keras_spectral.capture.rule import Backward
from keras_spectral.capture.sites import watched_sites
from keras_spectral.capture.tape import WatchedForward
from keras_spectral.errors import GroupsError
from keras_spectral.groups import Membership
from keras_spectral.logger import SpectralLogger
from keras_spectral.settings import Spectra


class Introspection:
    """Looks at a model on batches, as often as wanted, without tracing again.

    Args:
        model: Compiled `keras.Model`, whose loss is used.
        settings: `Spectra`; its schedule counts the batches looked at.

    Raises:
        ValueError: If the model is not compiled.
    """

    def __init__(self, model, settings):
        if not model.compiled:
            raise ValueError(
                "`model` must be compiled: adjoints are gradients of its loss. "
                f"Received: {model.name}, not compiled. Try `model.compile(loss=…)`."
            )
        self._model = model
        self._sites = None
        self.logger = SpectralLogger(settings)
        self._look = self._watch if model.run_eagerly else tf.function(self._watch)

    def look(self, x, y, sample_weight, mask):
        """Record one batch.

        Args:
            x: Inputs, as the model's `call` takes them.
            y: Targets.
            sample_weight: Weights, or `None`.
            mask: 0/1 tensor `[n, g]`, or `None`.
        """
        if self._sites is None:
            self._forward(x)  # builds the model, and every layer in it
            sites = watched_sites(self._model, self.logger.settings)
            self._sites = aligned_sites(sites, self._forward, x, self.logger.settings.strict)
        self.logger.make_room(1)
        with _metrics_kept(self._model):
            self._look(x, y, sample_weight, mask)

    def _forward(self, x):
        return self._model(x, training=False)

    def _watch(self, x, y, sample_weight, mask):
        watched = WatchedForward(self._sites)
        with tf.GradientTape() as tape, watched(tape.watch):
            y_pred = self._forward(x)
            loss = self._model._compute_loss(
                x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=False
            )
        n = tf.shape(keras.tree.flatten(x)[0])[0]
        due = self.logger.due()
        per_example = self.logger.settings.gradients == "per_example"
        backward = Backward(n, mask, due, example_gradients=per_example)
        adjoints = tape.gradient(loss, watched.outputs)
        self.logger.update_state(lambda: watched.factors(adjoints, backward), mask, n, due)


@contextlib.contextmanager
def _metrics_kept(model):
    # With several outputs Keras updates a metric per output whenever it computes the loss.
    before = {id(v): v.numpy() for metric in model.metrics for v in metric.variables}
    try:
        yield
    finally:
        for variable in (v for metric in model.metrics for v in metric.variables):
            variable.assign(before.get(id(variable), tf.zeros_like(variable)))


def introspect(
    model, x, y=None, groups=None, *, sample_weight=None, batch_size=None, steps=None, spectra=None
):
    """Return the spectra of a model on given data, without training it.

    The forward pass runs in inference mode (no dropout, moving averages in BatchNorm), the loss is
    the compiled one, and all examples form one batch unless `batch_size` is given.

    Args:
        model: Compiled `keras.Model` (a `SpectralModel` or any other).
        x: Array, or structure of arrays, with one row per example; or a `tf.data.Dataset`, from
            `with_groups` if there are groups, whose batches are looked at one by one.
        y: Targets, as in `fit`.
        groups: As in `SpectralModel.fit`.
        sample_weight: Weights, as in `fit`.
        batch_size: Examples per batch; the log's `step` then counts batches.
        steps: Number of batches to look at; `None` for all.
        spectra: As in `SpectralModel.compile`; `None` takes the model's own settings for what to
            record, at every batch.

    Returns:
        A `SpectralLog`.

    Raises:
        GroupsError: If `groups` does not fit `x`.
        ValueError: If the model is not compiled.
    """
    own = getattr(model, "spectral_logger", None)
    settings = Spectra.of(spectra) or (own.settings if own else Spectra())
    inspection = Introspection(model, every_call(settings))
    batches, membership, size = data_batches(x, y, groups, sample_weight, batch_size)
    inspection.logger.begin(membership, size)
    for batch in batches.take(-1 if steps is None else steps):
        inputs, y_true, weights = keras.utils.unpack_x_y_sample_weight(batch)
        inputs, mask = ungrouped(inputs)
        inspection.look(inputs, y_true, weights, mask)
    return inspection.logger.result()


def data_batches(x, y, groups, sample_weight, batch_size):
    """Return data as batches `(Grouped, y, sample_weight)` in their given order.

    Args:
        x: Arrays or a dataset, as in `introspect`.
        y: Targets, or `None` with a dataset.
        groups: As in `SpectralModel.fit`.
        sample_weight: Weights, or `None`.
        batch_size: Examples per batch; `None` for all at once.

    Returns:
        `(dataset, membership, batch size or None)`.

    Raises:
        GroupsError: If `groups` does not fit `x`.
    """
    if isinstance(x, tf.data.Dataset):
        if groups is not None:
            raise GroupsError(
                "`groups` must travel inside a tf.data.Dataset. Received: groups beside a dataset. "
                "Try `introspect(model, keras_spectral.with_groups(dataset, groups))`."
            )
        return (*grouped_dataset(x), None)
    arrays = keras.tree.map_structure(_array, x)
    n = len(keras.tree.flatten(arrays)[0])
    membership = Membership.of(groups, n=n)
    targets, weights = (keras.tree.map_structure(_array, part) for part in (y, sample_weight))
    parts = (Grouped(_tuples(arrays), membership.mask.astype("uint8")), _tuples(targets), weights)
    size = min(batch_size or n, n)
    return tf.data.Dataset.from_tensor_slices(parts).batch(size), membership, size


def every_call(settings):
    """Return settings that record at every call."""
    return dataclasses.replace(settings, every=1)


def _array(values):
    if values is None:
        return None
    array = np.asarray(values)
    return array.astype(keras.config.floatx()) if array.dtype.kind == "f" else array


def _tuples(structure):
    # tf.data takes a list for one tensor.
    return tuple(structure) if isinstance(structure, list) else structure
