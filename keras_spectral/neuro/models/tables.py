"""The multilayer perceptron, for tables of features."""

import keras

from keras_spectral.neuro.models.output import output_layer


def mlp(
    n_features,
    n_classes,
    hidden=(128, 64),
    dropout=0.5,
    l2=0.0,
    standardize=None,
    name="mlp",
):
    """Return a multilayer perceptron for a table of features: Dense, ReLU, Dropout, repeated.

    The defaults are for hundreds of features of some tens of subjects. Any network fits such a
    training set perfectly, and its predictions for new subjects depend on the initial weights. To
    reduce that variance there are strong dropout, many units, and an output layer whose initial
    weights have a tenth of Keras' default scale. Layers are named by depth, equally in every fold.

    Args:
        n_features: Number of columns of the input, standardised here or before.
        n_classes: Number of classes, at least 2.
        hidden: Widths of the hidden layers, first to last. `()` is multinomial logistic regression.
        dropout: Fraction of each hidden layer's units dropped in training, in `[0, 1)`.
        l2: Weight of an L2 penalty on the hidden kernels, added to the loss. The gradient of the
            penalty belongs to no example. 0: no penalty.
        standardize: Tuple `(mean, variance)` of the training examples, arrays `[n_features]`: a
            first layer standardises the input by them, so that the saved model takes raw features.
        name: Name of the model.

    Returns:
        An uncompiled functional `keras.Model` from `[n, n_features]` to class probabilities
        `[n, n_classes]`, for integer labels and `"sparse_categorical_crossentropy"`. Layers:
        `hidden_1`, `dropout_1`, `hidden_2`, …, `output`.

    Raises:
        DataError: If there are fewer than 2 classes.

    Example:
        >>> [layer.name for layer in mlp(378, 2, hidden=(64,)).layers]
        ['features', 'hidden_1', 'dropout_1', 'output']

    Source:
        Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from overfitting",
        JMLR 15:1929-1958 (half of the hidden units).
    """
    inputs = keras.Input((n_features,), name="features")
    x = inputs if standardize is None else _standardized(inputs, *standardize)
    for depth, width in enumerate(hidden, start=1):
        x = _hidden_layer(width, l2, depth)(x)
        x = keras.layers.Dropout(dropout, name=f"dropout_{depth}")(x)
    return keras.Model(inputs, output_layer(n_classes)(x), name=name)


def _standardized(inputs, mean, variance):
    return keras.layers.Normalization(mean=mean, variance=variance, name="standardize")(inputs)


def _hidden_layer(width, l2, depth):
    penalty = keras.regularizers.L2(l2) if l2 else None
    name = f"hidden_{depth}"
    return keras.layers.Dense(width, activation="relu", kernel_regularizer=penalty, name=name)
