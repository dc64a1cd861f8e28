"""Layers restated in float64, with what each weight multiplies. Shares no code with the package.

A restatement is a function `(layer, x, weights)` of the built Keras layer (for its settings alone),
its input and its weights by name, as float64 tensors. It returns the output and, for each weight,
`(A, Z)`: what the layer multiplies by it, `[n, s, i]`, and the product, `[n, s, o]`, whose gradient
a tape gives. The loops are plain: an oracle must be obvious, not fast.
"""

import itertools

import numpy as np
import tensorflow as tf

ACTIVATIONS = {
    "linear": lambda z: z,
    "relu": tf.nn.relu,
    "tanh": tf.math.tanh,
    "sigmoid": tf.math.sigmoid,
    "softmax": tf.nn.softmax,
}


def activated(layer, z):
    """Return the layer's activation function of `z`."""
    return ACTIVATIONS[layer.activation.__name__](z)


def rows(tensor):
    """Return `[n, …, w]` as `[n, s, w]`."""
    return tf.reshape(tensor, [len(tensor), -1, tensor.shape[-1]])


def dense(layer, x, weights):
    """`activation(x W + b)`."""
    z = tf.tensordot(x, weights["kernel"], 1) + weights.get("bias", 0.0)
    return activated(layer, z), {"kernel": (rows(x), z)}


def einsum_dense(rearranged, n_inputs):
    """Return the restatement of an `EinsumDense` that is a dense layer on features put last.

    Args:
        rearranged: The input's letters as given, and with the features that are summed over last.
        n_inputs: How many of them are summed over: so many axes of the kernel come first.
    """
    given, last = rearranged.split("->")

    def restated(layer, x, weights):
        kernel = weights["kernel"]
        o = kernel.shape[n_inputs:]
        x = tf.einsum(rearranged, x)
        positions = x.shape[1 : x.shape.rank - n_inputs]
        matrix = tf.reshape(kernel, [np.prod(kernel.shape[:n_inputs]), -1])
        a = tf.reshape(x, [len(x), -1, matrix.shape[0]])
        z = tf.reshape(a @ matrix, [len(x), *positions, *o]) + weights.get("bias", 0.0)
        product = tf.reshape(z, [len(x), -1, matrix.shape[1]])
        y = tf.reshape(product, z.shape)
        back = tf.einsum(f"{last}->{given}", y) if given != last else y
        return activated(layer, back), {"kernel": (a, product)}

    return restated


def padded(x, layer):
    """Return the input with the zeros that `padding` adds, channels last."""
    pads = [(0, 0)]
    for size, k, stride, rate in zip(
        x.shape[1:-1], layer.kernel_size, layer.strides, layer.dilation_rate, strict=True
    ):
        reach = (k - 1) * rate + 1
        outputs = int(np.ceil(size / stride))
        total = {
            "valid": 0,
            "causal": reach - 1,
            "same": max((outputs - 1) * stride + reach - size, 0),
        }[layer.padding]
        before = total if layer.padding == "causal" else total // 2
        pads.append((before, total - before))
    return tf.pad(x, [*pads, (0, 0)])


def unfolded(layer, x):
    """Return `(patches [n, s, k, c], output sizes)` of an input, channels last."""
    x = padded(x, layer)
    reach = [(k - 1) * d + 1 for k, d in zip(layer.kernel_size, layer.dilation_rate, strict=True)]
    sizes = [
        (size - r) // stride + 1
        for size, r, stride in zip(x.shape[1:-1], reach, layer.strides, strict=True)
    ]
    patches = []
    for position in itertools.product(*map(range, sizes)):
        corner = np.multiply(position, layer.strides)
        offsets = itertools.product(*map(range, layer.kernel_size))
        at = [corner + np.multiply(offset, layer.dilation_rate) for offset in offsets]
        patches.append(tf.stack([x[(slice(None), *index)] for index in at], axis=1))
    return tf.stack(patches, axis=1), sizes


def channels_last(layer, x):
    """Return an input with the channels at the end."""
    if layer.data_format == "channels_last":
        return x
    return tf.transpose(x, [0, *range(2, x.ndim), 1])


def as_the_layer_gives(layer, y):
    """Return an output with the channels where the layer has them."""
    if layer.data_format == "channels_last":
        return y
    return tf.transpose(y, [0, y.ndim - 1, *range(1, y.ndim - 1)])


def convolution(layer, x, weights):
    """Every filter on its group of channels."""
    patches, sizes = unfolded(layer, channels_last(layer, x))
    kernel = weights["kernel"]
    parts = tf.split(patches, layer.groups, axis=-1)
    kernels = tf.split(kernel, layer.groups, axis=-1)
    flat = [tf.reshape(part, [*part.shape[:2], -1]) for part in parts]
    z = tf.concat(
        [a @ tf.reshape(k, [a.shape[-1], -1]) for a, k in zip(flat, kernels, strict=True)], -1
    )
    y = activated(layer, z + weights.get("bias", 0.0))
    y = tf.reshape(y, [len(x), *sizes, -1])
    a = tf.reshape(patches, [*patches.shape[:2], -1])
    return as_the_layer_gives(layer, y), {"kernel": (a, z)}


def depthwise(layer, x, weights):
    """Every channel by itself."""
    patches, sizes = unfolded(layer, channels_last(layer, x))
    kernel = weights["kernel"]
    kernel = tf.reshape(kernel, [-1, *kernel.shape[-2:]])
    z = tf.reshape(tf.einsum("nskc,kcm->nscm", patches, kernel), [*patches.shape[:2], -1])
    y = activated(layer, z + weights.get("bias", 0.0))
    y = tf.reshape(y, [len(x), *sizes, -1])
    a = tf.reshape(patches, [*patches.shape[:2], -1])
    return as_the_layer_gives(layer, y), {"kernel": (a, z)}


def separable(layer, x, weights):
    """Every channel by itself, then all together."""
    patches, sizes = unfolded(layer, channels_last(layer, x))
    kernel = weights["depthwise_kernel"]
    kernel = tf.reshape(kernel, [-1, *kernel.shape[-2:]])
    y = tf.reshape(tf.einsum("nskc,kcm->nscm", patches, kernel), [*patches.shape[:2], -1])
    pointwise = weights["pointwise_kernel"]
    z = y @ tf.reshape(pointwise, pointwise.shape[-2:])
    out = tf.reshape(activated(layer, z + weights.get("bias", 0.0)), [len(x), *sizes, -1])
    a = tf.reshape(patches, [*patches.shape[:2], -1])
    found = {"depthwise_kernel": (a, y), "pointwise_kernel": (y, z)}
    return as_the_layer_gives(layer, out), found


def transposed(layer, x, weights):
    """Every input position adds its multiple of the kernel to what it reaches."""
    kernel = weights["kernel"]  # [*k, o, c]
    n, *spatial, c = x.shape
    o = kernel.shape[-2]
    flat = tf.reshape(kernel, [-1, c])  # [k o, c]
    z = tf.reshape(x, [n, -1, c]) @ tf.transpose(flat)  # [n, s, k o]
    parts = tf.reshape(z, [n, -1, flat.shape[0] // o, o])
    outs = layer.compute_output_shape(x.shape)[1:-1]
    settings = zip(
        spatial, layer.kernel_size, layer.strides, layer.dilation_rate, outs, strict=True
    )
    sizes, starts = [], []
    for size, k, stride, rate, out in settings:
        reach = (k - 1) * rate + 1
        total = max((size - 1) * stride + reach - out, 0)
        starts.append(total // 2 if layer.padding == "same" else 0)
        sizes.append(out)
    y = tf.zeros([n, *sizes, o], tf.float64)
    offsets = list(itertools.product(*map(range, layer.kernel_size)))
    for s, position in enumerate(itertools.product(*map(range, spatial))):
        for j, offset in enumerate(offsets):
            at = [
                p * stride + q * rate - start
                for p, stride, q, rate, start in zip(
                    position, layer.strides, offset, layer.dilation_rate, starts, strict=True
                )
            ]
            if all(0 <= index < size for index, size in zip(at, sizes, strict=True)):
                place = tf.one_hot(np.ravel_multi_index(at, sizes), int(np.prod(sizes)))
                one = tf.cast(tf.reshape(place, [1, *sizes, 1]), tf.float64)
                y += one * tf.reshape(parts[:, s, j], [n, *[1] * len(sizes), o])
    return activated(layer, y + weights.get("bias", 0.0)), {"kernel": (rows(x), z)}


def embedding(layer, x, weights):
    """A row of the table for every token, counted from the end if it is negative."""
    tokens = tf.math.floormod(tf.cast(x, tf.int32), layer.input_dim)
    a = tf.one_hot(tokens, layer.input_dim, dtype=tf.float64)
    z = tf.tensordot(a, weights["embeddings"], 1)
    return z, {"embeddings": (rows(a), z)}


class Steps:
    """What a recurrent layer multiplies, and gets, at each step."""

    def __init__(self, layer, x, mask):
        self.layer, self.cell = layer, layer.cell
        order = range(x.shape[1])
        self.order = list(reversed(order)) if layer.go_backwards else list(order)
        self.x, self.mask = x, np.ones(x.shape[:2], bool) if mask is None else mask
        self.taken = {}

    def keep(self, name, t, a, z):
        """Keep one step's rows; those of a masked step are zero, and so is their gradient."""
        a = a * self.mask[:, t, None]
        self.taken.setdefault(name, []).append((a, z))

    def factors(self):
        """Return `{name: (A [n, t, i], list of Z)}`."""
        return {
            name: (tf.stack([a for a, _ in pairs], axis=1), [z for _, z in pairs])
            for name, pairs in self.taken.items()
        }

    def output(self, states, outputs):
        """Return what the layer returns."""
        result = tf.stack(outputs, axis=1) if self.layer.return_sequences else outputs[-1]
        return tf.concat([result, *states], -1) if self.layer.return_state else result


def _where(mask, new, old):
    return tf.where(tf.constant(mask)[:, None], new, old)


def recurrent(step):
    """Return the restatement of a layer that runs `step` at every time.

    Args:
        step: Function `(steps, t, x, states, weights, dropped) -> states`.
    """

    def restated(layer, x, weights, mask=None, dropped=None, initial=None):
        steps = Steps(layer, x, mask)
        zeros = tf.zeros([len(x), layer.cell.units], tf.float64)
        n_states = 2 if "LSTM" in type(layer.cell).__name__ else 1
        states = [zeros] * n_states if initial is None else initial
        outputs, last = [], zeros
        for t in steps.order:
            new = step(steps, t, x[:, t], states, weights, dropped or (None, None))
            valid = steps.mask[:, t]
            states = [_where(valid, a, b) for a, b in zip(new, states, strict=True)]
            skipped = zeros if layer.zero_output_for_mask else last
            last = _where(valid, new[0], last)
            outputs.append(_where(valid, new[0], skipped))
        return steps.output(states, outputs), steps.factors()

    return restated


def _gates(mask, value, count):
    """Return the value as each gate sees it."""
    if mask is None:
        return [value] * count
    return [value * part for part in mask] if isinstance(mask, list) else [value * mask] * count


def _product(parts, weight):
    """Return `[A_1 W_1, A_2 W_2, …]` side by side, and A."""
    columns = tf.split(weight, len(parts), axis=1)
    z = tf.concat([a @ w for a, w in zip(parts, columns, strict=True)], axis=1)
    same = all(part is parts[0] for part in parts)
    return (parts[0] if same else tf.concat(parts, axis=1)), z


def _simple(steps, t, x, states, weights, dropped):
    a, b = _gates(dropped[0], x, 1)[0], _gates(dropped[1], states[0], 1)[0]
    z = a @ weights["kernel"] + b @ weights["recurrent_kernel"] + weights.get("bias", 0.0)
    steps.keep("kernel", t, a, z)
    steps.keep("recurrent_kernel", t, b, z)
    return [activated(steps.cell, z)]


def _lstm(steps, t, x, states, weights, dropped):
    xs, hs = _gates(dropped[0], x, 4), _gates(dropped[1], states[0], 4)
    a, from_x = _product(xs, weights["kernel"])
    b, from_h = _product(hs, weights["recurrent_kernel"])
    z = from_x + from_h + weights.get("bias", 0.0)
    steps.keep("kernel", t, a, z)
    steps.keep("recurrent_kernel", t, b, z)
    i, f, c, o = tf.split(z, 4, axis=1)
    gate, act = (
        ACTIVATIONS[f.__name__] for f in (steps.cell.recurrent_activation, steps.cell.activation)
    )
    carry = gate(f) * states[1] + gate(i) * act(c)
    return [gate(o) * act(carry), carry]


def _gru(steps, t, x, states, weights, dropped):
    h, u = states[0], steps.cell.units
    xs, hs = _gates(dropped[0], x, 3), _gates(dropped[1], h, 3)
    a, from_x = _product(xs, weights["kernel"])
    gate, act = (
        ACTIVATIONS[f.__name__] for f in (steps.cell.recurrent_activation, steps.cell.activation)
    )
    bias, kernel = weights.get("bias"), weights["recurrent_kernel"]
    if steps.cell.reset_after:
        of_x, of_h = (0.0, 0.0) if bias is None else (bias[0], bias[1])
        b, from_h = _product(hs, kernel)
        z, inner = from_x + of_x, from_h + of_h
        steps.keep("kernel", t, a, z)
        steps.keep("recurrent_kernel", t, b, inner)
        update, reset = (gate(z[:, k : k + u] + inner[:, k : k + u]) for k in (0, u))
        new = act(z[:, 2 * u :] + reset * inner[:, 2 * u :])
        return [update * h + (1 - update) * new]
    z = from_x + (0.0 if bias is None else bias)
    # One part for both gates if they see the same.
    b, from_h = _product(hs[:1] if hs[0] is hs[1] else hs[:2], kernel[:, : 2 * u])
    gates = z[:, : 2 * u] + from_h
    update, reset = gate(gates[:, :u]), gate(gates[:, u:])
    candidate = z[:, 2 * u :] + (reset * hs[2]) @ kernel[:, 2 * u :]
    steps.keep("kernel", t, a, [gates, candidate])
    steps.keep("recurrent_kernel", t, tf.concat([b, reset * hs[2]], 1), [gates, candidate])
    return [update * h + (1 - update) * act(candidate)]


simple_rnn = recurrent(_simple)
lstm = recurrent(_lstm)
gru = recurrent(_gru)
