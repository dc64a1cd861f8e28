"""The time of `fit`, without a wait at its end, which has nothing to do with what is timed.

A thread of tf.data tunes the pipeline at 10, 30, 70, … 630, 1270, … ms of its life, and what ends a
pipeline may wait for the next time: a `fit` of 0.65 s returns after 0.65 or after 1.3 s, with a
plain `keras.Model` too. So it is turned off, for everything that is timed.
"""

import functools
import time
import unittest.mock

import keras
import tensorflow as tf


class _Epoch(keras.callbacks.Callback):
    """Notes when the first epoch begins: what `fit` does before is no part of a step."""

    begin = None

    def on_epoch_begin(self, epoch, logs=None):
        self.begin = self.begin or time.perf_counter()


def timed_fit(model, *args, **kwargs):
    """Train a Keras model by its `fit`, and return the seconds from its first epoch to its end.

    Args:
        model: The model.
        *args: As `fit` takes them.
        **kwargs: As `fit` takes them, but for `callbacks`.
    """
    iterate, epoch = tf.data.Dataset.__iter__, _Epoch()

    @functools.wraps(iterate)
    def untuned(dataset):
        options = tf.data.Options()
        options.autotune.enabled = False
        return iterate(dataset.with_options(options))

    with unittest.mock.patch.object(tf.data.Dataset, "__iter__", untuned):
        model.fit(*args, callbacks=[epoch], **kwargs)
    return time.perf_counter() - epoch.begin
