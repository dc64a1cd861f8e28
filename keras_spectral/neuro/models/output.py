"""The output layer of every model: class probabilities."""

import keras

from keras_spectral.errors import DataError


def output_layer(n_classes):
    """Return the output layer: a softmax whose initial probabilities are nearly equal.

    Args:
        n_classes: Number of classes, at least 2.

    Raises:
        DataError: If there are fewer than 2 classes.
    """
    if n_classes < 2:
        raise DataError(
            "`n_classes` must be at least 2: the softmax of one output is always 1. "
            f"Received: n_classes={n_classes}. Try `n_classes=len(classes)`."
        )
    small = keras.initializers.VarianceScaling(0.01, mode="fan_avg", distribution="uniform")
    return keras.layers.Dense(
        int(n_classes), activation="softmax", kernel_initializer=small, name="output"
    )
