"""The slow, obvious reference: the gradient of every example, by differentiation alone.

Letters: `n` example, `i` input feature, `o` output feature.
"""

import tensorflow as tf


def example_gradients_of(rule, layer, call, adjoint, n):
    """Return each example's part of the training gradient of one layer call.

    With `c_n = Σ Z[n] ∘ Δ[n]`, Δ held constant, `∂c_n/∂W` is the part of the loss gradient that
    flows through the rows of example `n`. `tape.jacobian` differentiates all `c_n` at once; no
    formula of the layer is used.

    Args:
        rule: `ProductRule` of the layer.
        layer: The layer.
        call: `Call` of the layer.
        adjoint: Tensor `[n, …, o]`, `∂L/∂Z`.
        n: Scalar tensor, the number of examples.

    Returns:
        `{weight name: tensor [n, i, o]}`, whose sums over `n` are the gradients of the weights.
    """
    weights = {name: variable.value for name, variable in rule.weights(layer)}
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(list(weights.values()))
        z = rule.pre_activation(layer, tf.stop_gradient(call.inputs))
        product = tf.cast(z, adjoint.dtype) * tf.stop_gradient(adjoint)
        per_example = tf.reduce_sum(tf.reshape(product, tf.stack([n, -1])), axis=1)
    found = tape.jacobian(per_example, weights)
    return {name: rule.matrices(layer, name, found[name]) for name in weights}
