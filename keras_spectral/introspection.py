"""Spectra of a trained model on given data, without training."""

import contextlib
import dataclasses
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_spectral.batches import Grouped, grouped_inputs, without_groups
from keras_spectral.capture.alignment import aligned_sites
from keras_spectral.capture.calls import Backward
from keras_spectral.capture.sites import watched_sites
from keras_spectral.capture.verification import trained_gradients
from keras_spectral.capture.watching import watched_pass
from keras_spectral.groups import Membership
from keras_spectral.recorder import SpectralLogger
from keras_spectral.settings import Spectra


class Introspection:
    """Records a model on any number of batches, tracing it once.

    Args:
        model: Compiled `keras.Model`, whose loss is used.
        settings: `Spectra`; its schedule is not used.

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
        self._sites: Any = None
        self.logger = SpectralLogger(settings)
        self._run = self._watched if model.run_eagerly else tf.function(self._watched)

    def record(self, x, y, sample_weight, index):
        """Record one batch.

        Args:
            x: Inputs, as the model's `call` takes them.
            y: Targets.
            sample_weight: Weights, or `None`.
            index: Integer tensor `[n]`, the number of each example, or `None`.
        """
        if self._sites is None:
            self._forward(x)  # builds the model, and every layer in it
            sites = watched_sites(self._model, self.logger.settings)
            self._sites = aligned_sites(sites, self._forward, x, self.logger.settings.strict)
        members = self.logger.members(index)
        given = None if members is None else tf.constant(members, tf.uint8)
        with _metrics_kept(self._model):
            n, factors, trained = self._run(x, y, sample_weight, given)
        self.logger.update_state(self._sites, factors, trained, int(n), members)
        self.logger.advance()

    def _forward(self, x):
        return self._model(x, training=False)

    def _watched(self, x, y, sample_weight, members):
        weights = [variable for site in self._sites for _, variable in site.weights]
        watched = watched_pass(
            self._sites,
            lambda: self._model._compute_loss(
                x=x, y=y, y_pred=self._forward(x), sample_weight=sample_weight, training=False
            ),
            weights,
            per_example=self.logger.settings.gradients == "per_example",
        )
        n = tf.shape(keras.tree.flatten(x)[0])[0]
        trained = trained_gradients(self._sites, weights, watched.gradients, None)
        return n, watched.factors(Backward(n, members)), trained


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
            `with_groups` if there are groups, whose batches are recorded one by one.
        y: Targets, as in `fit`.
        groups: As in `SpectralModel.fit`.
        sample_weight: Weights, as in `fit`.
        batch_size: Examples per batch; the log's `step` then counts batches.
        steps: Number of batches to record; `None` for all.
        spectra: As in `SpectralModel.compile`, but every batch is recorded; `None` uses the
            model's own settings.

    Returns:
        A `SpectralLog`.

    Raises:
        GroupsError: If `groups` does not fit `x`.
        ValueError: If the model is not compiled.
    """
    own = getattr(model, "spectral_logger", None)
    settings = Spectra.of(spectra) or (own.settings if own else Spectra())
    inspection = Introspection(model, every_call(settings))
    batches, membership = data_batches(x, y, groups, sample_weight, batch_size)
    inspection.logger.membership = membership
    for batch in batches.take(-1 if steps is None else steps):
        inputs, y_true, weights = keras.utils.unpack_x_y_sample_weight(batch)
        (inputs,), index = without_groups((inputs,))
        inspection.record(inputs, y_true, weights, index)
    return inspection.logger.result()


def data_batches(x, y, groups, sample_weight, batch_size):
    """Return data as batches that begin with a `Grouped`, in the given order.

    Args:
        x: Arrays or a dataset, as in `introspect`.
        y: Targets, or `None` with a dataset.
        groups: As in `SpectralModel.fit`.
        sample_weight: Weights, or `None`.
        batch_size: Examples per batch; `None` for all at once.

    Returns:
        `(dataset, membership)`.

    Raises:
        GroupsError: If `groups` does not fit `x`.
    """
    if isinstance(x, tf.data.Dataset):
        return grouped_inputs(x, groups)
    arrays = keras.tree.map_structure(_array, x)
    n = len(keras.tree.flatten(arrays)[0])
    membership = Membership.of(groups, n=n)
    targets, weights = (keras.tree.map_structure(_array, part) for part in (y, sample_weight))
    parts = (Grouped(_tuples(arrays), np.arange(n)), _tuples(targets), weights)
    return tf.data.Dataset.from_tensor_slices(parts).batch(min(batch_size or n, n)), membership


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
