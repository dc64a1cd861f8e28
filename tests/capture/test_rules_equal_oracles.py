"""Every rule, under its options, against restatements and per-example tapes.

Each case is run for every way of running, every reduction of the loss, and groups of one example,
of some, of all, overlapping, or none at all. The quick suite takes a few of the combinations: each
case in a graph, eagerly or in XLA by turns, reductions by turns too, and those that run eagerly in
a graph in float64 as well. `make slow` takes all.
"""

import itertools
from typing import NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_spectral as ks
from keras_spectral.capture import recurrent
from tests.oracles import restated
from tests.oracles.mlp import singular_values

L = keras.layers
N = 5
TOLERANCES = {"float32": 1e-5, "float64": 1e-10}
"""Of σ₁ of the whole batch."""

SAMPLE_WEIGHT = np.array([0.5, 1.0, 2.0, 0.25, 1.5])
MASK = np.array(  # one, some, all, two that overlap
    [[0, 1, 1, 1, 0], [1, 1, 1, 1, 0], [0, 0, 1, 1, 1], [0, 0, 1, 0, 1], [0, 1, 1, 0, 0]], bool
)
MODES = ("graph", "eager", "xla")
REDUCTIONS = ("sum_over_batch_size", "sum", "mean_with_sample_weight")


pytestmark = pytest.mark.filterwarnings("ignore:Layer 'flatten'")  # which drops the mask


class Case(NamedTuple):
    """A layer under some options.

    Attributes:
        make: Function of a dtype that returns the layer.
        shape: Shape of one input.
        restated: Its restatement.
        masked: Whether a mask tells it to skip steps.
    """

    make: object
    shape: tuple
    restated: object
    masked: bool = False


def case(kind, *args, restated, shape, masked=False, **options):
    return Case(lambda dtype: kind(*args, dtype=dtype, **options), shape, restated, masked)


def convolutions(kind, spatial, restatement, *args, **variants):
    for name, options in variants.items():
        first = options.get("data_format") == "channels_first"
        shape = (4, *spatial) if first else (*spatial, 4)
        yield (
            f"{kind.__name__} {name}",
            case(kind, *args, restated=restatement, shape=shape, **options),
        )


def einsums():
    for name, equation, shape, output, rearranged, n_inputs, bias in (
        ("heads", "abc,cde->abde", (4, 5), (4, 2, 3), "abc->abc", 1, "de"),
        ("merged heads", "abcd,cde->abe", (4, 2, 3), (4, 5), "abcd->abcd", 2, "e"),
        ("features first", "acb,cd->adb", (5, 4), (3, 4), "acb->abc", 1, None),
    ):
        restatement = restated.einsum_dense(rearranged, n_inputs)
        options = {"activation": "tanh", "bias_axes": bias}
        yield (
            f"EinsumDense {name}",
            case(L.EinsumDense, equation, output, restated=restatement, shape=shape, **options),
        )


def recurrents(kind, restatement, **variants):
    for name, options in variants.items():
        masked = options.pop("masked", False)
        yield (
            f"{kind.__name__} {name}",
            case(kind, 3, restated=restatement, shape=(4, 2), masked=masked, **options),
        )


CONV = {
    "valid": {},
    "same": {"padding": "same", "activation": "tanh"},
    "strides": {"strides": 2, "padding": "same"},
    "dilation": {"dilation_rate": 2, "use_bias": False},
    "groups": {"groups": 2, "padding": "same"},
    "softmax": {"activation": "softmax"},
}
CHANNELS_FIRST = {"channels first": {"data_format": "channels_first", "padding": "same"}}
TRANSPOSED = {
    "valid": {},
    "same": {"padding": "same", "strides": 2, "activation": "tanh"},
    "output padding": {"padding": "valid", "strides": 3, "output_padding": 1},
}  # TensorFlow has no dilated ones on a CPU
DEPTHWISE = {
    "valid": {},
    "same": {"padding": "same", "depth_multiplier": 2, "activation": "tanh"},
    "strides": {"strides": 2},
    "dilation": {"dilation_rate": 2, "padding": "same"},
}
RECURRENT = {
    "last": {},
    "sequences": {"return_sequences": True},
    "backwards": {"go_backwards": True, "return_sequences": True},
    "unrolled": {"unroll": True},
    "no bias": {"use_bias": False},
    "state": {"return_state": True},
    "masked": {"masked": True, "return_sequences": True},
    "masked, zeros, backwards": {
        "masked": True,
        "zero_output_for_mask": True,
        "return_sequences": True,
        "go_backwards": True,
    },
}


def cases():
    yield "Dense", case(L.Dense, 3, restated=restated.dense, shape=(4,), activation="tanh")
    yield "Dense tokens", case(L.Dense, 3, restated=restated.dense, shape=(3, 4))
    yield (
        "Dense softmax",
        case(L.Dense, 3, restated=restated.dense, shape=(4,), activation="softmax", use_bias=False),
    )
    yield from einsums()
    causal = {"causal": {"padding": "causal", "dilation_rate": 2}}
    yield from convolutions(L.Conv1D, (7,), restated.convolution, 6, 3, **CONV, **causal)
    yield from convolutions(L.Conv1D, (7,), restated.convolution, 6, 3, **CHANNELS_FIRST)
    yield from convolutions(L.Conv2D, (5, 6), restated.convolution, 4, (2, 3), **CONV)
    yield from convolutions(L.Conv3D, (4, 4, 5), restated.convolution, 4, 2, **CONV)
    transposed = restated.transposed
    yield from convolutions(L.Conv1DTranspose, (4,), transposed, 3, 2, **TRANSPOSED)
    yield from convolutions(L.Conv2DTranspose, (3, 4), transposed, 3, (2, 3), **TRANSPOSED)
    yield from convolutions(L.Conv3DTranspose, (2, 3, 2), transposed, 2, 2, **TRANSPOSED)
    yield from convolutions(L.DepthwiseConv1D, (6,), restated.depthwise, 3, **DEPTHWISE)
    yield from convolutions(L.DepthwiseConv2D, (5, 5), restated.depthwise, 2, **DEPTHWISE)
    yield from convolutions(L.SeparableConv1D, (6,), restated.separable, 3, 3, **DEPTHWISE)
    yield from convolutions(L.SeparableConv2D, (5, 5), restated.separable, 3, 2, **DEPTHWISE)
    yield from recurrents(L.SimpleRNN, restated.simple_rnn, **_copied(RECURRENT))
    yield from recurrents(L.LSTM, restated.lstm, **_copied(RECURRENT))
    yield from recurrents(L.GRU, restated.gru, **_copied(RECURRENT))
    before = {name: {**options, "reset_after": False} for name, options in RECURRENT.items()}
    for name, one in recurrents(L.GRU, restated.gru, **before):
        yield f"{name}, reset before", one
    yield "Embedding", case(L.Embedding, 7, 3, restated=restated.embedding, shape=(4,))
    yield "Embedding of few", case(L.Embedding, 3, 6, restated=restated.embedding, shape=(4,))


def _copied(variants):
    return {name: dict(options) for name, options in variants.items()}


CASES = dict(cases())


def built(one, dtype, seed=0):
    """Return `(model, layer, x, y)` of a case, biases drawn at random too."""
    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    layer = one.make(dtype)
    tokens = isinstance(layer, L.Embedding)
    inputs = keras.Input(one.shape, dtype="int32" if tokens else dtype)
    x = rng.integers(-layer.input_dim, layer.input_dim, (N, *one.shape)) if tokens else None
    x = rng.standard_normal((N, *one.shape)).astype("f") if x is None else x
    outputs = inputs
    if one.masked:
        x[0, 1:] = x[1, :2] = x[2] = 0
        outputs = L.Masking(dtype=dtype)(inputs)
    outputs = layer(outputs)
    if isinstance(outputs, list | tuple):
        outputs = L.Concatenate(dtype=dtype)(list(outputs))
    outputs = L.Flatten(dtype=dtype)(outputs)
    model = ks.SpectralModel(inputs, outputs)
    for weight in model.weights:
        weight.assign(rng.standard_normal(weight.shape) * 0.7)
    # Keras hands over float32 whatever it is given.
    return model, layer, x, rng.standard_normal((N, *outputs.shape[1:])).astype("f")


def losses(prediction, y, reduction):
    """Return each example's part `[n]` of a weighted mean squared error, as it is reduced."""
    errors = tf.reduce_mean(tf.square(tf.reshape(prediction, y.shape) - y), axis=1)
    weights = tf.constant(SAMPLE_WEIGHT, errors.dtype)
    total = {
        "sum": 1.0,
        "sum_over_batch_size": float(N),
        "mean_with_sample_weight": SAMPLE_WEIGHT.sum(),
    }[reduction]
    return errors * weights / tf.constant(total, errors.dtype)


def oracle(one, model, layer, x, y, reduction):
    """Return `{weight: (A [n, s, i], Δ [n, s, o], G [n, i, o])}` in float64."""
    weights = {w.path.split("/")[-1]: tf.constant(w.numpy(), tf.float64) for w in layer.weights}
    y64, x64 = tf.constant(y, tf.float64), tf.constant(x, tf.float64)
    options = {"mask": np.any(x != 0, axis=-1)} if one.masked else {}
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([x64, *weights.values()])
        prediction, found = one.restated(layer, x64, weights, **options)
        loss = tf.reduce_sum(losses(prediction, y64, reduction))
    flat = tf.reshape(prediction, y.shape)
    np.testing.assert_allclose(flat, model(x), rtol=1e-4, atol=1e-4)
    names = {w.path.split("/")[-1]: w for w in layer.weights}
    gradients = example_gradients(model, x, y, [names[name] for name in found], reduction)
    result = {}
    for (name, (a, z)), of_examples in zip(found.items(), gradients, strict=True):
        delta = _gradient(tape, loss, z)
        result[name] = np.asarray(a), delta, _as_matrices(layer, name, of_examples, a)
    return result


def _gradient(tape, loss, z):
    if not isinstance(z, list):
        delta = np.asarray(tape.gradient(loss, z, unconnected_gradients="zero"))
        return delta.reshape(N, -1, delta.shape[-1])
    steps = [_of_step(tape, loss, part) for part in z]
    return np.stack(steps, axis=1)


def _of_step(tape, loss, z):
    parts = z if isinstance(z, list) else [z]
    return np.concatenate(
        [tape.gradient(loss, part, unconnected_gradients="zero") for part in parts], axis=-1
    )


def example_gradients(model, x, y, weights, reduction):
    """Return `[n, *shape]` for each weight, by a plain tape for every example."""
    found = []
    for n in range(N):
        with tf.GradientTape() as tape:
            prediction = model(x)
            term = losses(prediction, tf.cast(y, prediction.dtype), reduction)[n]
        found.append(tape.gradient(term, [w.value for w in weights]))
    return [
        np.stack([np.asarray(tf.convert_to_tensor(g), float) for g in own])
        for own in zip(*found, strict=True)
    ]


def _as_matrices(layer, name, gradients, a):
    if isinstance(layer, L.EinsumDense):
        return gradients.reshape(N, a.shape[-1], -1)
    if "Transpose" in type(layer).__name__:
        return np.moveaxis(gradients, -1, 1).reshape(N, gradients.shape[-1], -1)
    if "depthwise" in name or "Depthwise" in type(layer).__name__:
        return gradients.reshape(N, -1, np.prod(gradients.shape[-2:]))
    return gradients.reshape(N, -1, gradients.shape[-1])


def recorded(model, x, y, reduction, mode="graph", groups=MASK, **settings):
    loss = keras.losses.MeanSquaredError(reduction=reduction, dtype=model.output.dtype)
    model.compile(
        keras.optimizers.SGD(0.0),
        loss,
        spectra=ks.Spectra(strict=True, **settings),
        run_eagerly=mode == "eager",
        jit_compile=mode == "xla",
    )
    weight = SAMPLE_WEIGHT.astype(y.dtype)
    model.fit(x, y, sample_weight=weight, groups=groups, batch_size=N, shuffle=False, verbose=0)
    return model.spectral_log


def assert_equal(log, wanted, tolerance, groups=MASK):
    members = {"all": np.ones(N, bool)}
    if groups is not None:
        members |= {str(g): column for g, column in enumerate(groups.T)}
    for weight, (a, d, g) in wanted.items():
        for group, own in members.items():
            matrices = {
                "activation": a[own].reshape(-1, a.shape[-1]),
                "adjoint": d[own].reshape(-1, d.shape[-1]),
                "gradient": g[own].sum(axis=0),
            }
            for quantity, matrix in matrices.items():
                part = log.select(weight=weight, quantity=quantity, group=group)
                assert len(part.sigma) == 1, (weight, quantity, group)
                values = part.sigma[0][~np.isnan(part.sigma[0])]
                of_all = {"activation": a, "adjoint": d}.get(quantity)
                of_all = g.sum(axis=0) if of_all is None else of_all.reshape(-1, of_all.shape[-1])
                expected = singular_values(matrix, len(values))
                rank = np.linalg.matrix_rank(matrix, tol=tolerance * singular_values(of_all, 1)[0])
                assert len(values) >= rank, (weight, quantity, group)
                error = np.abs(values - expected).max()
                scale = singular_values(of_all, 1)[0]
                assert error <= tolerance * scale, (weight, quantity, group, error / scale)


COMBINATIONS = [
    (name, mode, reduction, groups)
    for name in CASES
    for mode, reduction, groups in itertools.product(MODES, REDUCTIONS, ("five", "none"))
]


def _turn(name):
    """Return the mode and the reduction of a case in the quick suite, or `None`."""
    number = list(CASES).index(name)
    if number % 2 and "LSTM" not in name:
        return None
    number //= 2
    return MODES[number % len(MODES)], REDUCTIONS[number // len(MODES) % len(REDUCTIONS)]


def _is_quick(name, mode, reduction, groups):
    return (mode, reduction) == _turn(name) and groups == "five"


def _parameter(name, mode, reduction, groups):
    marks = [] if _is_quick(name, mode, reduction, groups) else [pytest.mark.slow]
    return pytest.param(name, mode, reduction, groups, marks=marks)


@pytest.mark.parametrize(
    ("name", "mode", "reduction", "groups"), [_parameter(*c) for c in COMBINATIONS]
)
def test_spectra_equal_the_oracle(name, mode, reduction, groups):
    one, mask = CASES[name], MASK if groups == "five" else None
    model, layer, x, y = built(one, "float32")
    log = recorded(model, x, y, reduction, mode, mask)
    wanted = oracle(one, model, layer, x, y, reduction)
    assert set(log.rows["weight"]) == set(wanted)
    assert_equal(log, wanted, TOLERANCES["float32"], mask)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if number % 21 else [])
        for number, name in enumerate(CASES)
        if "channels first" not in name
    ],
)
def test_in_float64_to_ten_digits(name):
    model, layer, x, y = built(CASES[name], "float64")
    log = recorded(model, x, y, "sum_over_batch_size")
    wanted = oracle(CASES[name], model, layer, x, y, "sum_over_batch_size")
    assert_equal(log, wanted, TOLERANCES["float64"])


def test_dropout_is_in_the_activations():
    for kind, restatement, options in DROPOUTS:
        one = case(kind, 3, restated=restatement, shape=(4, 2), **options)
        model, layer, x, y = built(one, "float32")
        state = layer.cell.seed_generator.state
        before = state.numpy()
        log = recorded(model, x, y, "sum")
        state.assign(before)
        dropped = [layer.cell.get_dropout_mask(tf.constant(x[:, 0]))]
        dropped.append(layer.cell.get_recurrent_dropout_mask(tf.zeros([N, 3])))
        layer.cell.reset_dropout_mask()
        layer.cell.reset_recurrent_dropout_mask()
        dropped = tf.nest.map_structure(
            lambda mask: None if mask is None else tf.cast(mask, tf.float64), dropped
        )
        assert_equal(log, restated_factors(one, layer, x, y, dropped=dropped), 1e-5)


FUSED = [f"{kind} {name}" for kind in ("LSTM", "GRU") for name in RECURRENT if name != "masked"]


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if k % 4 else []) for k, name in enumerate(FUSED)],
)
def test_a_run_by_a_fused_kernel_is_repeated(name, monkeypatch):
    monkeypatch.setattr(recurrent, "is_fused", lambda layer: True)  # a CPU has none: told so
    one = CASES[name]
    model, layer, x, y = built(one, "float32")
    before = model.get_weights()
    log = recorded(model, x, y, "sum_over_batch_size")
    wanted = oracle(one, model, layer, x, y, "sum_over_batch_size")
    assert set(log.rows["weight"]) == set(wanted)
    assert_equal(log, wanted, TOLERANCES["float32"])
    assert "inner_loop" not in vars(layer)
    for weight, value in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, value)


def test_a_repeated_run_drops_what_the_first_one_dropped(monkeypatch):
    one = case(L.LSTM, 3, restated=restated.lstm, shape=(4, 2), dropout=0.4)
    logs = []
    for fused in (False, True):
        monkeypatch.setattr(recurrent, "is_fused", lambda layer, fused=fused: fused)
        keras.utils.set_random_seed(0)
        model, _, x, y = built(one, "float32")
        logs.append(recorded(model, x, y, "sum"))
    np.testing.assert_allclose(logs[1].sigma, logs[0].sigma, rtol=1e-4, atol=1e-6)


DROPOUTS = [
    (L.SimpleRNN, restated.simple_rnn, {"dropout": 0.4, "recurrent_dropout": 0.3}),
    (L.LSTM, restated.lstm, {"dropout": 0.4, "return_sequences": True}),
    (L.LSTM, restated.lstm, {"dropout": 0.4, "recurrent_dropout": 0.3}),
    (L.GRU, restated.gru, {"dropout": 0.4}),
    (L.GRU, restated.gru, {"dropout": 0.4, "reset_after": False, "return_sequences": True}),
    (L.GRU, restated.gru, {"dropout": 0.4, "recurrent_dropout": 0.3}),
    (L.GRU, restated.gru, {"recurrent_dropout": 0.3, "reset_after": False}),
]


def restated_factors(one, layer, x, y, **options):
    """Return the oracle of a layer that cannot run again as it ran: gradients are restated too."""
    weights = {w.path.split("/")[-1]: tf.constant(w.numpy(), tf.float64) for w in layer.weights}
    x64 = tf.constant(x, tf.float64)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(weights)
        prediction, found = one.restated(layer, x64, weights, **options)
        terms = losses(prediction, tf.constant(y, tf.float64), "sum")
        each = [terms[n] for n in range(N)]
        loss = tf.reduce_sum(terms)
    return {
        name: (
            np.asarray(a),
            _gradient(tape, loss, z),
            np.stack([np.asarray(tape.gradient(term, weights[name])) for term in each]),
        )
        for name, (a, z) in found.items()
    }


@pytest.mark.parametrize(
    ("kind", "fused"),
    [("LSTM", False), ("GRU", False), ("SimpleRNN", False), ("LSTM", True), ("GRU", True)],
)
def test_states_may_come_from_outside_or_from_the_batch_before(kind, fused, monkeypatch):
    monkeypatch.setattr(recurrent, "is_fused", lambda layer: fused)
    restatement = {"LSTM": restated.lstm, "GRU": restated.gru, "SimpleRNN": restated.simple_rnn}
    layer = getattr(L, kind)(3, stateful=True, return_sequences=True)
    inputs = keras.Input(batch_shape=(N, 4, 2))
    model = ks.SpectralModel(inputs, L.Flatten()(layer(inputs)))
    rng = np.random.default_rng(0)
    for weight in model.trainable_weights:
        weight.assign(rng.standard_normal(weight.shape))
    initial = [rng.standard_normal((N, 3)).astype("f") for _ in layer.states]
    for state, value in zip(layer.states, initial, strict=True):
        state.assign(value)
    x = rng.standard_normal((N, 4, 2)).astype("f")
    y = rng.standard_normal((N, 12)).astype("f")
    log = recorded(model, x, y, "sum")
    states = [tf.constant(value, tf.float64) for value in initial]
    one = Case(None, (4, 2), restatement[kind])
    assert_equal(log, restated_factors(one, layer, x, y, initial=states), 1e-5)


def test_a_convolution_called_on_two_sizes_has_the_patches_of_both():
    layer = L.Conv1D(3, 2, use_bias=False, name="shared")
    first, second = keras.Input((6, 4)), keras.Input((3, 4))
    both = L.Concatenate(axis=1)([layer(first), layer(second)])
    model = ks.SpectralModel([first, second], L.Flatten()(both))
    rng = np.random.default_rng(0)
    x = [rng.standard_normal((N, *part.shape[1:])).astype("f") for part in (first, second)]
    y = rng.standard_normal((N, 21)).astype("f")
    log = recorded(model, x, y, "sum")
    kernel = tf.constant(layer.kernel.numpy(), tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(kernel)
        taken = [
            restated.convolution(layer, tf.constant(part, tf.float64), {"kernel": kernel})[1]
            for part in x
        ]
        a = tf.concat([found["kernel"][0] for found in taken], axis=1)
        z = a @ tf.reshape(kernel, [8, 3])
        loss = tf.reduce_sum(losses(z, tf.constant(y, tf.float64), "sum"))
    a, delta = np.asarray(a), np.asarray(tape.gradient(loss, z))
    assert_equal(log, {"kernel": (a, delta, np.einsum("nsi,nso->nio", a, delta))}, 1e-5)
