"""Recurrent layers: `Z_t = x_t W + h_{t-1} U + b` at every step `t`, gates side by side.

Letters: `n` example, `t` step, `i` input feature, `u` unit, `o` gate and unit.

For the input weight `W [i, o]`, A is the input `[n, t, i]`; for the recurrent weight `U [u, o]`, A
is the state before each step `[n, t, u]`; both after dropout. Δ of both is the gate adjoint `∂L/∂Z
[n, t, o]`, so `G = AᵀΔ` is summed over time. Steps that a mask skips are rows of zeros.

The reset gate r of a GRU acts on the candidate. If it is applied after the product, `x W + r ∘ (h
U)`, Δ of the candidate's columns of U is `r ∘ Δ`; if before it, `x W + (r ∘ h) U`, their A is `r ∘
h`. With recurrent dropout each gate has a dropout mask of its own, and A consists of parts for the
gates, side by side.

The intermediate results of a loop are not accessible, but a loop can be differentiated with respect
to its inputs. So zeros are passed into the loop beside the inputs, one for each number that an
activation function receives; a custom gradient assigns them the gradient of that number. These
gradients are the gate adjoints. Keras' own code computes everything.

On a GPU Keras may run a fused kernel, which does not expose its gates and cannot be differentiated
twice. Its run is left as it is, and the loop is run again, in recorded steps only, with the same
inputs and the same adjoints of its outputs: the numbers agree up to rounding.
"""

from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from keras_spectral.capture.calls import Call, unscaled
from keras_spectral.capture.keras_layers import attributes
from keras_spectral.capture.rule import InWords, Rule
from keras_spectral.matrices.factors import Factors, joined_calls
from keras_spectral.matrices.gates import Gates

L = keras.layers

LAYERS = (L.RNN, L.SimpleRNN, L.GRU, L.LSTM)

GATES = "`∂L/∂Z [n, t, o]` of every gate"


class RecurrentRule(Rule):
    """Captures the cell of `SimpleRNN`, `GRU`, `LSTM`, and of an `RNN` around such a cell."""

    layer_types = (L.SimpleRNNCell, L.GRUCell, L.LSTMCell)
    in_words = (
        InWords("kernel", "the input of every step `[n, t, i]`", GATES, "`[i, o]`"),
        InWords("recurrent_kernel", "the state before every step `[n, t, u]`", GATES, "`[u, o]`"),
    )
    left_to_generic = ("a cell in another loop than that of `RNN`",)

    def host(self, layer, around):
        """Return the recurrent layer that runs the cell, or `None`."""
        return None if self.hostless(layer, around) else around[0]

    def hostless(self, layer, around):
        """Return why no layer around the cell can be watched in its place, or `None`."""
        if not around or not isinstance(around[0], LAYERS):
            return "run by no recurrent layer of Keras"
        host = type(around[0])
        if (host.call, host.inner_loop) not in {(known.call, known.inner_loop) for known in LAYERS}:
            return f"run by {host.__name__}, which has a `call` or a loop of its own"
        return None

    def weights(self, layer):
        """Return both weights, by name."""
        return [("kernel", layer.kernel), ("recurrent_kernel", layer.recurrent_kernel)]

    @contextmanager
    def watched(self, layer, calls, watch):
        """Return a context in which every call of the layer is appended to `calls`.

        Args:
            layer: The recurrent layer.
            calls: List of `Call`.
            watch: Function by which a tensor is watched for its gradient.
        """
        loop = layer.inner_loop

        def watched_loop(sequences, initial_state, mask, training=False):
            seen, zeros, found = _tapped_run(layer, watch, sequences, initial_state, mask, training)
            calls.append(Call(seen, (zeros,)))
            return found

        def fused_loop(sequences, initial_state, mask, training=False):
            # Read now: in a stateful layer these are variables that are about to change.
            before = keras.tree.map_structure(tf.convert_to_tensor, initial_state)
            found = loop(sequences, initial_state, mask, training)
            # One output may depend on another, or be the same tensor; each needs its own Δ.
            found = keras.tree.map_structure(tf.identity, found)
            dropped = layer.cell.get_dropout_mask(sequences[:, 0]) if training else None
            sequences = _dropped(sequences, dropped, layer.cell.units)
            again = partial(_repeated, layer, sequences, before, mask)
            calls.append(Call(None, tuple(keras.tree.flatten(found)), again))
            return found

        with attributes(layer, inner_loop=fused_loop if is_fused(layer) else watched_loop):
            yield

    def factors(self, layer, calls, adjoints, backward):
        """Return A and Δ of both weights."""
        found = {name: [] for name, _ in self.weights(layer)}
        for call, own in zip(calls, adjoints, strict=True):
            seen, delta = call.again(own) if call.again else (call.inputs, own[0])
            delta = unscaled(delta, backward.scale)
            for name, (a, d) in _normal_form(layer, seen, delta).items():
                found[name].append(Factors(a, d))
        return {name: joined_calls(parts) for name, parts in found.items()}


def is_fused(layer):
    """Return whether Keras runs a layer by a fused kernel of a GPU, which supports all its options.

    Args:
        layer: Keras layer.
    """
    if not isinstance(layer, L.GRU | L.LSTM) or layer.use_cudnn is False:
        return False
    # Keras sets `supports_jit` to false where it will use the kernel.
    return not layer.supports_jit and not layer.recurrent_dropout


def _tapped_run(layer, watch, sequences, initial_state, mask, training):
    """Run the loop of a layer with zeros passed in beside the sequences.

    Returns:
        `(seen, zeros, found)`: the arguments of `_normal_form`, the zeros `[n, t, o]`, and the
        results of the loop, with outputs as sequences.
    """
    cell = layer.cell
    dynamic = tf.shape(sequences)
    n_and_t = [dynamic[k] if sequences.shape[k] is None else sequences.shape[k] for k in (0, 1)]
    zeros = tf.zeros([*n_and_t, cell.kernel.shape[1]], sequences.dtype)
    watch(zeros)
    mask = mask[0] if isinstance(mask, list | tuple) else mask
    with attributes(layer, return_sequences=True), attributes(cell, call=_with_taps(cell)):
        found = L.RNN.inner_loop(layer, _Tapped(sequences, zeros), initial_state, mask, training)
    first_state = tf.nest.flatten(initial_state)[0]
    seen = {
        "sequences": sequences,
        # Read now: in a stateful layer this is a variable that is about to change.
        "before": tf.convert_to_tensor(first_state),
        "outputs": found[1],
        "mask": mask,
        "dropped": cell.get_dropout_mask(sequences[:, 0]) if training else None,
        "dropped_states": cell.get_recurrent_dropout_mask(first_state) if training else None,
        "backwards": layer.go_backwards,
    }
    return seen, zeros, found


def _repeated(layer, sequences, initial_state, mask, adjoints):
    """Run the loop of a layer again that was run by a fused kernel.

    Args:
        layer: The recurrent layer.
        sequences: Its input, after dropout.
        initial_state: As the loop received it.
        mask: As the loop received it.
        adjoints: Adjoints of all outputs of the kernel, `None` where no gradient reaches one.

    Returns:
        `(seen, delta)`: the arguments of `_normal_form`, including the gate adjoints `[n, t, o]`.
    """
    with tf.GradientTape() as tape, keras.StatelessScope():
        seen, zeros, (last, outputs, states) = _tapped_run(
            layer, tape.watch, sequences, initial_state, mask, training=False
        )
    of_last, of_outputs, *of_states = adjoints
    if of_outputs is not None and not layer.return_sequences:
        outputs, of_outputs = last, of_outputs[:, 0]
    elif of_outputs is not None and seen["mask"] is not None:
        # The kernel fills the steps that it skips with zeros.
        steps = tf.reverse(seen["mask"], [1]) if layer.go_backwards else seen["mask"]
        of_outputs = _unless_masked(of_outputs, tf.cast(steps, tf.bool))
    pairs = zip([last, outputs, *states], [of_last, of_outputs, *of_states], strict=True)
    ends, given = zip(*((end, d) for end, d in pairs if d is not None), strict=True)
    return seen, tape.gradient(ends, zeros, output_gradients=list(given))


class _Tapped(NamedTuple):
    """Two inputs of one loop, sequences and zeros, or their values at one step."""

    sequences: Any
    zeros: Any

    @property
    def shape(self):
        """Shape of the sequences, which the loop reads."""
        return self.sequences.shape


def _with_taps(cell):
    """Return a `call` of the cell in which zeros receive the gradients of pre-activations.

    Activation functions are called gate by gate, in the order of the columns of the weights. An
    LSTM calls one once more, for its output, which has no zeros.
    """
    call, n_gates = cell.call, cell.kernel.shape[1] // cell.units
    names = [name for name in ("activation", "recurrent_activation") if hasattr(cell, name)]

    def tapped(function, zeros):
        return lambda z: function(_with_tap(z, next(zeros, None)))

    def call_with_taps(inputs, states, *args, **kwargs):
        zeros = iter(tf.split(inputs.zeros, n_gates, axis=-1))
        functions = {name: tapped(getattr(cell, name), zeros) for name in names}
        with attributes(cell, **functions):
            return call(inputs.sequences, states, *args, **kwargs)

    return call_with_taps


def _with_tap(z, zeros):
    """Return `z` unchanged. The gradient of `z` is also that of the zeros."""
    if zeros is None:
        return z

    @tf.custom_gradient
    def through(z, zeros):
        return tf.identity(z), lambda dz: (dz, tf.cast(dz, zeros.dtype))

    return through(z, zeros)


def _normal_form(cell, seen, delta):
    x, outputs, mask = seen["sequences"], seen["outputs"], seen["mask"]
    if seen["backwards"]:  # in the order of the loop, like the outputs
        x, delta = tf.reverse(x, [1]), tf.reverse(delta, [1])
        mask = None if mask is None else tf.reverse(mask, [1])
    if mask is not None:
        mask = tf.cast(mask, tf.bool)
    states = _states_before(seen["before"], outputs, mask)
    inputs = _unless_masked(_dropped(x, seen["dropped"], cell.units), mask)
    hidden = _unless_masked(_dropped(states, seen["dropped_states"], cell.units), mask)
    if not isinstance(cell, L.GRUCell):
        return {"kernel": (inputs, delta), "recurrent_kernel": (hidden, delta)}
    u, reset = cell.units, _reset_gate(cell, inputs, hidden)
    if cell.reset_after:
        reset = tf.cast(reset, delta.dtype)
        of_states = tf.concat([delta[..., : 2 * u], reset * delta[..., 2 * u :]], -1)
        return {"kernel": (inputs, delta), "recurrent_kernel": (hidden, of_states)}
    parts, widths = [hidden, hidden], (2 * u, u)
    if isinstance(hidden, Gates):
        parts, widths = tf.split(hidden.tensor, 3, axis=-1), (u, u, u)
    hidden = Gates(tf.concat([*parts[:-1], reset * parts[-1]], -1), widths)
    return {"kernel": (inputs, delta), "recurrent_kernel": (hidden, delta)}


def _states_before(first, outputs, mask):
    """Return the state `[n, t, u]` before each step, from outputs with masked steps skipped."""
    if mask is None:
        return tf.concat([first[:, None], outputs[:, :-1]], axis=1)
    done = tf.argsort(tf.cast(~mask, tf.int32), axis=1, stable=True)  # steps taken, then others
    states = tf.concat([first[:, None], tf.gather(outputs, done, batch_dims=1)], axis=1)
    taken = tf.cumsum(tf.cast(mask, tf.int32), axis=1, exclusive=True)
    return tf.gather(states, taken, batch_dims=1)


def _dropped(x, masks, units):
    if masks is None:
        return x
    if not isinstance(masks, list):
        return x * masks[:, None]
    parts = [x * mask[:, None] for mask in masks]
    return Gates(tf.concat(parts, axis=-1), (units,) * len(parts))


def _unless_masked(a, mask):
    if mask is None:
        return a
    if isinstance(a, Gates):
        return Gates(_unless_masked(a.tensor, mask), a.outputs)
    return tf.where(mask[..., None], a, tf.zeros_like(a))


def _of_gate(a, gate):
    """Return the part of A that belongs to a gate."""
    return tf.split(a.tensor, a.n_blocks, axis=-1)[gate] if isinstance(a, Gates) else a


def _reset_gate(cell, x, states):
    """Return the reset gate `[n, t, u]`, as the cell computes it."""
    of_reset = slice(cell.units, 2 * cell.units)
    x = _of_gate(x, 1)
    states = tf.cast(_of_gate(states, 1), x.dtype)
    z = x @ _columns(cell.kernel, of_reset, x)
    z += states @ _columns(cell.recurrent_kernel, of_reset, x)
    if cell.bias is not None:
        biases = tf.reshape(_columns(cell.bias, slice(None), x), [-1, 3 * cell.units])
        z += tf.reduce_sum(biases, axis=0)[of_reset]
    return cell.recurrent_activation(z)


def _columns(weight, columns, like):
    return tf.cast(weight.value, like.dtype)[..., columns]
