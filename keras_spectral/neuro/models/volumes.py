"""The convolutional network for volumes, `[n, x, y, z, 1]`."""

import keras
from keras import layers

from keras_spectral.errors import DataError
from keras_spectral.neuro.models.output import output_layer

MOMENTUM = 0.9
"""Momentum of the running statistics of batch normalisation."""


def cnn3d(shape, n_classes, filters=(4, 8, 16, 24, 32), dropout=0.5, name="cnn3d"):
    """Return a 3D convolutional network: convolution, batch normalisation, ReLU, pooling; a mean.

    The default blocks are those that the laboratory whose method this library follows published
    for grey matter volumes of 121 x 145 x 121 voxels. The momentum of batch normalisation is 0.9,
    not Keras' 0.99: a small study has too few steps for the running statistics to converge, and
    the network in inference would differ from the one in training.

    Args:
        shape: Number of voxels along each of the three axes.
        n_classes: Number of classes, at least 2.
        filters: Output channels of each block.
        dropout: Fraction of the mean's features dropped in training.
        name: Name of the model.

    Returns:
        An uncompiled functional `keras.Model` from `[n, *shape, 1]` to probabilities
        `[n, n_classes]`. Layers with weights: `conv_1`, `normal_1`, `conv_2`, …, `output`.

    Raises:
        DataError: If the volumes are too small, or there are fewer than 2 classes.
    """
    smallest = 2 ** len(filters)
    if len(shape) != 3 or min(shape) < smallest:
        raise DataError(
            f"`shape` must be three numbers of voxels, at least {smallest} for {len(filters)} "
            f"blocks. Received: shape={tuple(shape)}. Try fewer `filters`."
        )
    x = inputs = keras.Input((*shape, 1), name="volume")
    for k, channels in enumerate(filters, start=1):
        x = layers.Conv3D(channels, 3, padding="same", use_bias=False, name=f"conv_{k}")(x)
        x = layers.BatchNormalization(momentum=MOMENTUM, name=f"normal_{k}")(x)
        x = layers.ReLU(name=f"relu_{k}")(x)
        x = layers.MaxPooling3D(2, name=f"pool_{k}")(x)
    x = layers.GlobalAveragePooling3D(name="mean")(x)
    x = layers.Dropout(dropout, name="dropout")(x)
    return keras.Model(inputs, output_layer(n_classes)(x), name=name)
