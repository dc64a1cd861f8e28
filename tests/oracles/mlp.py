"""Independent float64 restatement of small Dense networks. Shares no code with the package.

Per-example gradients come from one plain tape per example; activations and adjoints from NumPy.
"""

import keras
import numpy as np
import tensorflow as tf

DERIVATIVES = {
    "linear": (lambda z: z, lambda z: np.ones_like(z)),
    "relu": (lambda z: np.maximum(z, 0), lambda z: (z > 0).astype(float)),
    "tanh": (np.tanh, lambda z: 1 - np.tanh(z) ** 2),
}


def activations_and_adjoints(weights, activations, x, y, sample_weight=None):
    """Return lists of A and Δ of every layer for mean softmax cross-entropy, in float64.

    `weights` is `[kernel, bias, kernel, bias, …]`; the last layer is followed by a softmax.
    """
    kernels = [np.asarray(w, float) for w in weights[0::2]]
    biases = [np.asarray(b, float) for b in weights[1::2]]
    inputs, pre = [np.asarray(x, float)], []
    for j, (kernel, bias) in enumerate(zip(kernels, biases, strict=True)):
        pre.append(inputs[-1] @ kernel + bias)
        if j < len(kernels) - 1:
            inputs.append(DERIVATIVES[activations[j]][0](pre[-1]))
    shifted = np.exp(pre[-1] - pre[-1].max(axis=1, keepdims=True))
    probabilities = shifted / shifted.sum(axis=1, keepdims=True)
    scale = np.ones(len(x)) if sample_weight is None else np.asarray(sample_weight, float)
    delta = (probabilities - np.eye(probabilities.shape[1])[y]) * scale[:, None] / len(x)
    adjoints = [delta]
    for j in range(len(kernels) - 1, 0, -1):
        slope = DERIVATIVES[activations[j - 1]][1](pre[j - 1])
        adjoints.insert(0, (adjoints[0] @ kernels[j].T) * slope)
    return inputs, adjoints


def example_gradients(model, x, y, weights, sample_weight=None):
    """Return per-example gradients `[n, *shape]` of each weight, one plain tape an example.

    The loss of example `n` is its term of the batch mean: cross-entropy times weight over `N`.
    """
    found = []
    for n in range(len(x)):
        with tf.GradientTape() as tape:
            prediction = model(x[n : n + 1], training=False)
            loss = keras.losses.sparse_categorical_crossentropy(y[n : n + 1], prediction)[0]
            weight = 1.0 if sample_weight is None else float(sample_weight[n])
            loss = tf.cast(loss, tf.float64) * weight / len(x)
        found.append([np.asarray(g, dtype=float) for g in tape.gradient(loss, weights)])
    return [np.stack(gradients) for gradients in zip(*found, strict=True)]


def singular_values(matrix, k):
    """Return the `k` largest singular values in float64, zeros where there are fewer."""
    matrix = np.asarray(matrix, dtype=float)
    if 0 in matrix.shape:
        return np.zeros(k)
    values = np.linalg.svd(matrix, compute_uv=False)
    return np.pad(values, (0, max(0, k - len(values))))[:k]
