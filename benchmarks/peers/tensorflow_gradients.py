"""TensorFlow alone: the gradient of each group from gradients of single examples, or one by one.

Only gradients: Keras hands out neither what a layer multiplies by its weight nor its adjoint.
"""

import keras
import tensorflow as tf

from benchmarks.peers import oracle
from benchmarks.peers.task import CHECK, GROUPS, Loop, Peer
from benchmarks.workloads import WORKLOADS
from keras_spectral.neuro.models import mlp

ROWS_FIRST = ("query", "key", "value")
"""Layers within attention whose kernel has its outputs on the last two axes, not on one."""


def tape_jacobian(task):
    """Return the peer that differentiates the vector of all losses."""

    def gradients(model, kernels, x, y, masks):
        with tf.GradientTape(persistent=True) as tape:
            losses = _losses(model, x, y)
            loss = tf.reduce_mean(losses)
        each = tape.jacobian(losses, kernels)
        return tape.gradient(loss, model.trainable_variables), _summed(each, masks)

    return _peer(task, gradients)


def vectorized_map(task):
    """Return the peer that differentiates the loss of one example, vectorised."""

    def gradients(model, kernels, x, y, masks):
        def of_one(example):
            x, y = example
            with tf.GradientTape() as tape:
                loss = _losses(model, x[None], y[None])[0]
            return tape.gradient(loss, kernels)

        each = tf.vectorized_map(of_one, (x, y))
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(_losses(model, x, y))
        return tape.gradient(loss, model.trainable_variables), _summed(each, masks)

    return _peer(task, gradients)


def pass_per_group(task):
    """Return the peer that makes one backward pass for each group."""

    def gradients(model, kernels, x, y, masks):
        with tf.GradientTape(persistent=True) as tape:
            losses = _losses(model, x, y)
            loss = tf.reduce_mean(losses)
            parts = [tf.reduce_mean(losses * mask) for mask in tf.unstack(masks[:-1])]
        variables = model.trainable_variables
        of_batch = tape.gradient(loss, variables)
        of_groups = [tape.gradient(part, kernels) for part in parts]
        # The last group is the batch.
        of_all = [g for g, v in zip(of_batch, variables, strict=True) if _is_kernel(v)]
        by_kernel = zip(*of_groups, of_all, strict=True)
        return of_batch, [tf.stack(parts) for parts in by_kernel]

    return _peer(task, gradients)


def _is_kernel(variable):
    return variable.name.endswith("kernel")


def _losses(model, x, y):
    return keras.losses.sparse_categorical_crossentropy(y, model(x, training=True))


def _summed(each, masks):
    """Return the gradient of every group, `[group, *kernel]`, of that of every example's loss."""
    n = tf.cast(tf.shape(masks)[1], tf.float32)
    return [tf.tensordot(masks, gradient, 1) / n for gradient in each]


def _peer(task, gradients):
    model, optimizer = _network(task)
    kernels = {
        variable.path.removesuffix("/kernel"): variable
        for variable in model.trainable_variables
        if _is_kernel(variable)
    }

    @tf.function
    def recorded(x, y, masks):
        masks = tf.cast(masks, tf.float32)
        values = list(kernels.values())
        of_batch, of_groups = gradients(model, values, x, y, masks)
        optimizer.apply_gradients(zip(of_batch, model.trainable_variables, strict=True))
        return {
            name: tf.linalg.svd(_matrices(name, gradient), compute_uv=False)
            for name, gradient in zip(kernels, of_groups, strict=True)
        }

    loop = Loop(lambda *batch: tf.nest.map_structure(lambda t: t.numpy(), recorded(*batch)), task)

    def found():
        return {
            (name, "gradient", group): values
            for name, by_group in loop.result.items()
            for group, values in zip(GROUPS, by_group, strict=True)
        }

    return Peer(Loop(_plain_step(*_network(task)), task), loop, found)


def _matrices(name, gradients):
    """Return `[group, i, o]` of gradients `[group, *kernel]`."""
    shape = gradients.shape
    columns = shape[-1] * shape[-2] if name.endswith(ROWS_FIRST) else shape[-1]
    return tf.reshape(gradients, (len(GROUPS), -1, columns))


def _network(task):
    if task.network == CHECK:
        *widths, classes = oracle.WIDTHS
        model = mlp(widths[0], classes, widths[1:], dropout=0.0)
        model.set_weights([array for pair in oracle.parameters() for array in pair])
    else:
        model = keras.Model(*WORKLOADS[task.network].tensors())
    optimizer = keras.optimizers.Adam()
    optimizer.build(model.trainable_variables)
    return model, optimizer


def _plain_step(model, optimizer):
    @tf.function
    def step(x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(_losses(model, x, y))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    return lambda x, y, masks: step(x, y).numpy()
