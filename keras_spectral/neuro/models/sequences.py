"""Models for time series of regions or components, `[n, t, r]`, padded with zeros at the end.

Letters: `n` subject, `t` time point, `r` region, `w` window.
"""

import keras
from keras import layers, ops

from keras_spectral.errors import DataError
from keras_spectral.neuro.models.output import output_layer


def bilstm(
    n_time,
    n_regions,
    n_classes,
    window=10,
    encoder=64,
    units=32,
    dropout=0.5,
    name="bilstm",
):
    """Return a recurrent network: an encoder of each window, a bidirectional LSTM, a mean.

    The defaults are for about a hundred subjects. The laboratory whose method this library follows
    published, for windows of independent component time courses, an encoder of 256 and 384 units:
    use these for large data.

    Args:
        n_time: Number of time points; those after the last whole window are cropped.
        n_regions: Number of regions or components.
        n_classes: Number of classes, at least 2.
        window: Time points of a window; windows do not overlap.
        encoder: Units of the dense layer that is applied to every window.
        units: Units of the LSTM in each direction.
        dropout: Fraction of the mean's features dropped in training.
        name: Name of the model.

    Returns:
        An uncompiled functional `keras.Model` from `[n, n_time, n_regions]` to probabilities
        `[n, n_classes]`. Layers with weights: `encoder`, `bilstm`, `output`.

    Raises:
        DataError: If there is no whole window, or there are fewer than 2 classes.
    """
    inputs, x, there = _windows(n_time, n_regions, window)
    x = layers.Dense(encoder, activation="relu", name="encoder")(x)
    recurrent = layers.LSTM(units, return_sequences=True, name="lstm")
    x = layers.Bidirectional(recurrent, name="bilstm")(x, mask=there)
    x = layers.GlobalAveragePooling1D(name="mean")(x, mask=there)
    x = layers.Dropout(dropout, name="dropout")(x)
    return keras.Model(inputs, output_layer(n_classes)(x), name=name)


def transformer(
    n_time,
    n_regions,
    n_classes,
    window=8,
    width=64,
    heads=4,
    feed_forward=128,
    blocks=2,
    dropout=0.2,
    name="transformer",
):
    """Return a Transformer encoder over windows, with learned positions, then a mean.

    "BERT-like" means the encoder alone: every window attends to all others. It is not BERT: there
    is no vocabulary, no pre-training on masked windows, and the layers are normalised before, not
    after, attention and feed-forward, which trains stably without a warm-up.

    Args:
        n_time: Number of time points; those after the last whole window are cropped.
        n_regions: Number of regions or components.
        n_classes: Number of classes, at least 2.
        window: Time points that make one token.
        width: Features of a token in the network, a multiple of `heads`.
        heads: Attention heads.
        feed_forward: Units of the hidden layer of each block.
        blocks: Number of blocks.
        dropout: Fraction dropped after attention and feed-forward in training.
        name: Name of the model.

    Returns:
        An uncompiled functional `keras.Model` from `[n, n_time, n_regions]` to probabilities
        `[n, n_classes]`. Layers with weights: `embedding`; per block `attention_1`, `hidden_1`,
        `back_1` and two normalisations; `normalized` and `output`.

    Raises:
        DataError: If there is no whole window, or there are fewer than 2 classes.

    Source:
        Vaswani et al. 2017, "Attention is all you need"; Devlin et al. 2019, "BERT"; Xiong et al.
        2020, "On layer normalization in the Transformer architecture".
    """
    inputs, x, there = _windows(n_time, n_regions, window)
    # A bias for each position: the learned positions of BERT.
    embed = layers.EinsumDense(
        "bti,io->bto", (n_time // window, width), bias_axes="to", name="embedding"
    )
    x = embed(x)
    for k in range(1, blocks + 1):
        normal = layers.LayerNormalization(name=f"normal_attention_{k}")(x)
        attend = layers.MultiHeadAttention(heads, width // heads, name=f"attention_{k}")
        seen = attend(normal, normal, attention_mask=ops.expand_dims(there, 1))
        x = layers.Add(name=f"add_attention_{k}")(
            [x, layers.Dropout(dropout, name=f"dropout_attention_{k}")(seen)]
        )
        normal = layers.LayerNormalization(name=f"normal_feed_forward_{k}")(x)
        hidden = layers.Dense(feed_forward, activation="gelu", name=f"hidden_{k}")(normal)
        back = layers.Dense(width, name=f"back_{k}")(hidden)
        x = layers.Add(name=f"add_feed_forward_{k}")(
            [x, layers.Dropout(dropout, name=f"dropout_feed_forward_{k}")(back)]
        )
    x = layers.LayerNormalization(name="normalized")(x)
    x = layers.GlobalAveragePooling1D(name="mean")(x, mask=there)
    return keras.Model(inputs, output_layer(n_classes)(x), name=name)


def cnn1d(
    n_time,
    n_regions,
    n_classes,
    filters=(32, 64),
    kernel_size=7,
    pool=4,
    dropout=0.5,
    name="cnn1d",
):
    """Return a convolutional network in time: convolution, ReLU and pooling, repeated; a mean.

    Args:
        n_time: Number of time points.
        n_regions: Number of regions or components: the channels of the input.
        n_classes: Number of classes, at least 2.
        filters: Output channels of each convolution.
        kernel_size: Time points that a convolution sees.
        pool: Time points of a max pooling window.
        dropout: Fraction of the mean's features dropped in training.
        name: Name of the model.

    Returns:
        An uncompiled functional `keras.Model` from `[n, n_time, n_regions]` to probabilities
        `[n, n_classes]`. Layers with weights: `conv_1`, `conv_2`, …, `output`. Padded time points
        count as zeros.

    Raises:
        DataError: If the series are too short, or there are fewer than 2 classes.
    """
    if n_time < pool ** len(filters):
        raise DataError(
            f"`n_time` must be at least {pool ** len(filters)} for {len(filters)} poolings by "
            f"{pool}. Received: n_time={n_time}. Try fewer `filters`, or a smaller `pool`."
        )
    x = inputs = keras.Input((n_time, n_regions), name="series")
    for k, channels in enumerate(filters, start=1):
        convolve = layers.Conv1D(
            channels, kernel_size, padding="same", activation="relu", name=f"conv_{k}"
        )
        x = layers.MaxPooling1D(pool, name=f"pool_{k}")(convolve(x))
    x = layers.GlobalAveragePooling1D(name="mean")(x)
    x = layers.Dropout(dropout, name="dropout")(x)
    return keras.Model(inputs, output_layer(n_classes)(x), name=name)


def _windows(n_time, n_regions, window):
    """Return the input, its windows `[n, w, window n_regions]`, and a mask of unpadded windows."""
    if not 0 < window <= n_time:
        raise DataError(
            "`window` must be at most the number of time points. "
            f"Received: window={window}, for {n_time} time points."
        )
    inputs = keras.Input((n_time, n_regions), name="series")
    x = layers.Cropping1D((0, n_time % window), name="whole_windows")(inputs)
    x = layers.Reshape((n_time // window, window * n_regions), name="windows")(x)
    return inputs, x, ops.any(ops.not_equal(x, 0.0), axis=-1)
