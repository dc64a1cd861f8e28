"""The slow, independent reference: the gradient of every example, by differentiation alone.

Letters: `n` example, `i` input feature, `o` output feature.

Let `Y` be the output of a layer call, and `D = ∂L/∂Y`, held constant. Then `c_n = ⟨Y[n], D[n]⟩` has
the same derivative with respect to the weights of the layer as the loss through the output rows of
example `n`. So `∂c_n/∂W` is that example's part of the training gradient. Keras' own code runs the
layer again from the inputs and the state of the call, and `tape.jacobian` differentiates all `c_n`.
No formula of a layer is used, and no product of activations and adjoints.
"""

import contextlib
from functools import partial

import keras
import tensorflow as tf

from keras_spectral.capture.calls import Call, Received, copied, ends_of, state_of, unscaled
from keras_spectral.capture.keras_layers import attributes, name_of_call


@contextlib.contextmanager
def watched_outputs(layer, calls):
    """Append every call of a layer to a list, from which it can be run again.

    Args:
        layer: The layer.
        calls: List of `Call`.

    Yields:
        Nothing.
    """
    called = name_of_call(layer)
    call = getattr(layer, called)

    def listening_call(*args, **kwargs):
        received = Received(args, kwargs, state_of(layer))
        outputs = keras.tree.map_structure(copied, call(*args, **kwargs))
        calls.append(Call(received, tuple(ends_of(outputs)), partial(received.run_by, layer)))
        return outputs

    with attributes(layer, **{called: listening_call}):
        yield


def example_gradients(weights, layer, calls, adjoints, backward):
    """Return each example's part of the gradients of some weights.

    Args:
        weights: Pairs `(name, variable)`, each used only within the calls.
        layer: The layer that was called.
        calls: List of `Call` of it, as `watched_outputs` appends them.
        adjoints: For each call a list of `∂L/∂output`; `None` where no gradient reaches one.
        backward: `Backward`.

    Returns:
        `{weight name: tensor [n, …]}`, whose sums over `n` are the gradients of the weights.
    """
    values = {name: variable.value for name, variable in weights}
    # The fused kernels of a GPU cannot be differentiated for each example.
    plain = {"use_cudnn": False} if hasattr(layer, "use_cudnn") else {}
    once = {"persistent": True, "watch_accessed_variables": False}
    with attributes(layer, **plain), tf.GradientTape(**once) as tape:
        tape.watch(list(values.values()))
        each = [
            _of_examples(y, unscaled(d, backward.scale), backward.n)
            for call, deltas in zip(calls, adjoints, strict=True)
            for y, d in zip(ends_of(call.again()), deltas, strict=True)
            if d is not None
        ]
        contributions = tf.add_n(each)
    return _jacobian(tape, contributions, values)


def _jacobian(tape, contributions, values):
    zero = tf.UnconnectedGradients.ZERO
    try:
        return tape.jacobian(contributions, values, unconnected_gradients=zero)
    except ValueError:  # a loop, as in a recurrent layer, cannot be vectorised
        one_by_one = {"experimental_use_pfor": False, "unconnected_gradients": zero}
        return tape.jacobian(contributions, values, **one_by_one)


def _of_examples(y, delta, n):
    """Return `⟨Y[n], D[n]⟩` of every example."""
    product = tf.cast(y, delta.dtype) * tf.stop_gradient(delta)
    return tf.reduce_sum(tf.reshape(product, tf.stack([n, -1])), axis=1)
