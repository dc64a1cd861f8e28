"""`fit` without a wait at its end, which has nothing to do with what is timed.

A thread of tf.data tunes the pipeline at 10, 30, 70, … 630, 1270, … ms of its life, and what ends a
pipeline may wait for the next time: a `fit` of 0.65 s returns after 0.65 or after 1.3 s, with a
plain `keras.Model` too. So it is turned off, for everything that is timed.
"""

import functools
import unittest.mock

import tensorflow as tf


def fit(model, *args, **kwargs):
    """Train a Keras model by its `fit`, tf.data tuning nothing.

    Args:
        model: The model.
        *args: As `fit` takes them.
        **kwargs: As `fit` takes them.
    """
    iterate = tf.data.Dataset.__iter__

    @functools.wraps(iterate)
    def untuned(dataset):
        options = tf.data.Options()
        options.autotune.enabled = False
        return iterate(dataset.with_options(options))

    with unittest.mock.patch.object(tf.data.Dataset, "__iter__", untuned):
        return model.fit(*args, **kwargs)
