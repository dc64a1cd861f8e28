"""Every way of training that Keras has: the weights of a plain model, and its gradients.

Each way trains a plain model and a watched one, made alike. The weights must be equal, the spectra
of the first step those of a plain `tf.GradientTape`, and two groups that share the examples between
them must be seen wherever they are. The quick suite takes each way on one network; `make slow`
takes them all on both.
"""

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_spectral as ks
from keras_spectral.capture.keras_layers import own_variables
from keras_spectral.capture.sites import sites
from tests.oracles.mlp import singular_values

L = keras.layers

N, BATCH = 22, 8
"""Two whole batches and a ragged one, in each epoch."""

GROUPS = np.array(["a", "b", "b", "a", "a", "b", "a", "b"] * 2 + ["a"] * 6)
"""Of the ragged batch, all examples are in one group."""

TOLERANCE = 1e-4
"""Of σ₁: two ways to sum in float32."""


# --- networks ---


class Mixing(L.Layer):
    """Attention with a residual, as users write it."""

    def __init__(self, **options):
        super().__init__()
        self.supports_masking = True
        self.attention = L.MultiHeadAttention(2, 2, **options)
        self.norm = L.LayerNormalization()

    def build(self, shape):
        self.attention.build(shape, shape)
        self.norm.build(shape)

    def call(self, x, training=None):
        return self.norm(x + self.attention(x, x, training=training))


class Penalised(L.Layer):
    """Adds to the loss, has a weight, and tells its sublayers nothing."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones", name="scale")

    def call(self, x):
        self.add_loss(0.1 * keras.ops.mean(keras.ops.square(x)))
        return x * self.scale


def signals(dropout=0.0, penalised=False, recurrent=None, **options):
    yield L.Conv1D(4, 3, activation="relu", name="conv", **options)
    yield L.BatchNormalization(name="norm")
    if dropout:
        yield L.Dropout(dropout)
    if penalised:
        yield Penalised(name="penalised")
    yield L.GRU(3, name="gru", dropout=dropout, **options, **recurrent or {})


def words(dropout=0.0, penalised=False, recurrent=None, mask_zero=False, **options):
    of_embedding = {name.replace("kernel", "embeddings"): v for name, v in options.items()}
    yield L.Embedding(9, 4, name="embedding", mask_zero=mask_zero, **of_embedding)
    if dropout:
        yield L.SpatialDropout1D(dropout)
    yield L.LSTM(
        3, name="lstm", return_sequences=True, dropout=dropout, **options, **recurrent or {}
    )
    yield Mixing(dropout=dropout, **options)
    if penalised:
        yield Penalised(name="penalised")
    yield L.GlobalAveragePooling1D()


def short(dropout=0.0, penalised=False, recurrent=None, **options):
    yield L.Conv1D(3, 3, activation="tanh", name="conv", **options)
    yield L.LayerNormalization(name="norm")
    if dropout:
        yield L.Dropout(dropout)
    if penalised:
        yield Penalised(name="penalised")
    yield L.GlobalAveragePooling1D()


class Network(NamedTuple):
    """Layers before the head, and what they take.

    Attributes:
        layers: Function of options that yields layers.
        x: Inputs.
    """

    layers: Callable
    x: Any

    @property
    def input(self):
        return keras.Input(self.x.shape[1:], dtype=self.x.dtype)


def tokens(rng):
    x = rng.integers(1, 9, (N, 6)).astype("int32")
    return np.where(np.arange(6) < rng.integers(1, 7, (N, 1)), x, 0).astype("int32")


RNG = np.random.default_rng(0)
Y = RNG.integers(0, 3, N)
SIGNALS = RNG.standard_normal((N, 7, 2)).astype("f")
NETWORKS = {
    "signals": Network(signals, SIGNALS),
    "words": Network(words, tokens(RNG)),
    "short": Network(short, SIGNALS),
}


def head(**options):
    return L.Dense(3, activation="softmax", name="head", dtype="float32", **options)


# --- structures: functions of (class of model, network, options of its layers) ---


def chained(x, layers):
    for layer in layers:
        x = layer(x)
    return x


def functional(cls, network, **options):
    inputs = network.input
    return cls(inputs, head()(chained(inputs, network.layers(**options))), name="net")


def of_kind(cls, model):
    return model if cls is keras.Model else ks.SpectralModel.from_model(model)


def sequential(cls, network, **options):
    layers = [network.input, *network.layers(**options), head()]
    return of_kind(cls, keras.Sequential(layers))


def unbuilt_sequential(cls, network, **options):
    return of_kind(cls, keras.Sequential([*network.layers(**options), head()]))


def nested(cls, network, **options):
    first, *others = network.layers(**options)
    inputs = network.input
    inner = keras.Model(inputs, first(inputs), name="inner")
    outer = keras.Sequential([inner, *others], name="outer")
    inputs = network.input
    return cls(inputs, head()(outer(inputs)), name="net")


class Chain:
    """Built when first called."""

    def __init__(self, layers):
        super().__init__()
        self.chain, self.head = list(layers), head()

    def call(self, x, training=None):
        return self.head(chained(x, self.chain))


def own(mixin, cls):
    return type(mixin.__name__, (mixin, cls), {})


def subclassed(cls, network, **options):
    return own(Chain, cls)(network.layers(**options))


def built(cls, network, **options):
    model = subclassed(cls, network, **options)
    model(network.x[:1])
    return model


def wrapped(cls, network, **options):
    return of_kind(cls, subclassed(keras.Model, network, **options))


def shared_layers(cls, network, **options):
    one, two = network.input, network.input
    left, right = one, two
    for layer in network.layers(**options):
        left, right = layer(left), layer(right)
    return cls([one, two], head()(L.Concatenate()([left, right])), name="net")


def shared_submodel(cls, network, **options):
    inputs = network.input
    shared = keras.Model(inputs, chained(inputs, network.layers(**options)), name="shared")
    one, two = network.input, network.input
    return cls([one, two], head()(L.Concatenate()([shared(one), shared(two)])), name="net")


def several(cls, network, **options):
    inputs, extra = network.input, keras.Input((5,), name="extra")
    x = L.Concatenate()([chained(inputs, network.layers(**options)), L.Dense(2)(extra)])
    outputs = {"kind": L.Dense(3, activation="softmax", name="kind")(x)}
    outputs["score"] = L.Dense(1, name="score")(x)
    return cls([inputs, extra], outputs, name="net")


def translating(cls, network, **options):
    """An encoder whose last states are the first of a decoder, seen by wrappers of layers."""
    inputs = network.input
    first, *_ = network.layers(**options)
    x, *states = L.LSTM(3, return_state=True, return_sequences=True, name="encoder")(first(inputs))
    x = L.LSTM(3, return_sequences=True, name="decoder")(x, initial_state=states)
    x = L.TimeDistributed(L.Dense(4, activation="tanh"))(x)
    return cls(inputs, head()(L.Bidirectional(L.GRU(2))(x)), name="net")


# --- ways ---


class Way(NamedTuple):
    """One way of training.

    Attributes:
        structure: Function that returns a model.
        options: Of the layers.
        compiled: Function that returns options of `compile`.
        fitted: Function of a network that returns options of `fit`.
        data: Function of a network that returns `(x, y)`.
        policy: Of mixed precision.
        tolerance: Of σ₁.
        weights: How far trained weights may be from those of a plain model.
    """

    structure: Callable = functional
    options: dict = {}  # noqa: RUF012
    compiled: Callable = lambda: {}
    fitted: Callable = lambda network: {}
    data: Callable = lambda network: (network.x, Y)
    policy: str = "float32"
    tolerance: float = TOLERANCE
    weights: float = 0.0


def twice(network):
    return [network.x, network.x[::-1]], Y


def two_targets(network):
    x = [network.x, RNG_FREE[:, :5]]
    return x, {"kind": Y, "score": RNG_FREE[:, 5:]}


RNG_FREE = np.random.default_rng(1).standard_normal((N, 6)).astype("f")

TWO_LOSSES = {
    "loss": {"kind": "sparse_categorical_crossentropy", "score": "mse"},
    "loss_weights": {"kind": 0.5, "score": 2.0},
}


def focal(y_true, y_pred):
    p = keras.ops.sum(keras.ops.one_hot(keras.ops.reshape(y_true, [-1]), 3) * y_pred, axis=1)
    return -((1 - p) ** 2) * keras.ops.log(p)


def scaling():
    optimizer = keras.optimizers.Adam(0.01)
    return {"optimizer": keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=2.0**10)}


def adam(**options):
    return lambda: {"optimizer": keras.optimizers.Adam(0.01, **options)}


def decayed():
    return {"optimizer": keras.optimizers.AdamW(0.01, global_clipnorm=0.1, use_ema=True)}


def by_xla():
    # Adam would make steps of the rounding of gradients that are 0.
    return {"optimizer": keras.optimizers.SGD(0.1), "jit_compile": True}


REGULAR = {"kernel_regularizer": keras.regularizers.L2(0.01)}
ACTIVE = {"activity_regularizer": keras.regularizers.L2(0.1)}
RECURRENT = {"recurrent_regularizer": keras.regularizers.L1(0.01)}
CONSTRAINED = {"kernel_constraint": keras.constraints.MaxNorm(0.5)}
SAMPLE_WEIGHT = np.linspace(0.0, 2.0, N).astype("f")

WAYS = {
    "functional": Way(),
    "sequential": Way(sequential),
    "sequential, unbuilt": Way(unbuilt_sequential),
    "nested": Way(nested),
    "subclassed, unbuilt": Way(subclassed),
    "subclassed, built": Way(built),
    "subclassed, wrapped": Way(wrapped),
    "shared layers": Way(shared_layers, data=twice),
    "a shared submodel": Way(shared_submodel, data=twice),
    "several inputs, outputs and losses": Way(
        several, data=two_targets, compiled=lambda: TWO_LOSSES
    ),
    "states handed on": Way(translating),
    "add_loss": Way(options={"penalised": True}),
    "activity regularisers": Way(options=ACTIVE),
    "weight regularisers": Way(options={**REGULAR, "recurrent": RECURRENT}),
    "constraints": Way(options=CONSTRAINED),
    "dropout": Way(options={"dropout": 0.3}),
    # A weight's gradient is rounded to 11 or 8 bits by the plain tape alone.
    "float16": Way(policy="mixed_float16", compiled=scaling, tolerance=2e-3),
    "bfloat16": Way(policy="mixed_bfloat16", tolerance=2e-2),
    "float64": Way(policy="float64"),
    # XLA fuses what it is given, and is given more: float32 rounds otherwise.
    "xla": Way(compiled=by_xla, weights=1e-6),
    "eagerly": Way(compiled=lambda: {"run_eagerly": True}),
    "gradient accumulation": Way(compiled=adam(gradient_accumulation_steps=2)),
    "weight decay, clipping, averages": Way(compiled=decayed),
    "several steps per execution": Way(compiled=lambda: {"steps_per_execution": 3}),
    "sample weights": Way(fitted=lambda network: {"sample_weight": SAMPLE_WEIGHT}),
    "class weights": Way(fitted=lambda network: {"class_weight": {0: 0.5, 1: 2.0, 2: 1.0}}),
    "validation": Way(
        fitted=lambda network: {"validation_data": (network.x[:5], Y[:5]), "validation_freq": 1}
    ),
    "a loss of one's own": Way(compiled=lambda: {"loss": focal}),
}

ON_WORDS_ONLY = {"masking": Way(options={"mask_zero": True})}

ON_SIGNALS = {
    "nested",
    "subclassed, unbuilt",
    "dropout",
    "float16",
    "eagerly",
    "weight regularisers",
}
"""The ways that a loop in the graph might be in the way of."""

LEFT_TO_SLOW = {
    "states handed on",
    "sequential",
    "subclassed, built",
    "subclassed, unbuilt",
    "a shared submodel",
    "class weights",
    "constraints",
    "activity regularisers",
    "weight regularisers",
    "bfloat16",
    "validation",
}
"""The ways that are like another one, and that the quick suite leaves to the slow one."""

QUICK = {
    ("masking", "words"),
    *((way, "signals") for way in ON_SIGNALS - LEFT_TO_SLOW),
    *((way, "short") for way in WAYS if way not in ON_SIGNALS | LEFT_TO_SLOW),
}


def parameters():
    for network in NETWORKS:
        for name, way in (WAYS | ON_WORDS_ONLY if network == "words" else WAYS).items():
            quick = (name, network) in QUICK
            if quick or network != "short":
                marks = () if quick else pytest.mark.slow
                yield pytest.param(way, NETWORKS[network], id=f"{name}, {network}", marks=marks)


# --- the plain model, the watched one, and the comparison ---


@contextlib.contextmanager
def policy(name):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def compiled(model, **options):
    spectra = {"spectra": 1} if isinstance(model, ks.SpectralModel) else {}
    loss = "sparse_categorical_crossentropy"
    model.compile(**{"optimizer": "adam", "loss": loss, **spectra, **options})
    return model


def made(way, cls, network):
    keras.backend.clear_session(
        free_memory=False
    )  # layers named alike: TensorFlow adds in the order of names
    keras.utils.set_random_seed(1)
    with policy(way.policy):
        return compiled(way.structure(cls, network, **way.options), **way.compiled())


def trained(model, x, y, **fitted):
    keras.utils.set_random_seed(2)  # of weights made when first called
    arguments = {"batch_size": BATCH, "epochs": 2, "shuffle": False, "verbose": 0}
    history = model.fit(x, y, **arguments | fitted)
    return history.history


def first_batch(x, y, fitted):
    weight = fitted.get("sample_weight")
    if "class_weight" in fitted:
        weight = np.array([fitted["class_weight"][kind] for kind in y], "f")
    return keras.tree.map_structure(
        lambda part: None if part is None else tf.constant(part[:BATCH]), (x, y, weight)
    )


def plain_gradients(model, x, y, sample_weight):
    """Return the gradients of the loss without weight regularisers, in float64."""
    keras.utils.set_random_seed(2)  # as in `trained`
    with tf.GradientTape() as tape:
        prediction = model(x, training=True)
        loss = model.compute_loss(x, y, prediction, sample_weight, training=True)
        weights = model.trainable_variables
        loss -= sum(w.regularizer(w) for w in weights if w.regularizer is not None)
        scale = getattr(model.optimizer, "initial_scale", 1.0)
        loss *= scale
    found = tape.gradient(
        loss,
        [weight.value for weight in weights],
        unconnected_gradients=tf.UnconnectedGradients.ZERO,
    )
    return [np.asarray(tf.convert_to_tensor(part), float) / scale for part in found]


def as_matrix(layer, gradient):
    """Return a gradient `[i, o]`: of a kernel of `EinsumDense`, `i` is what the input has."""
    if isinstance(layer, L.EinsumDense):
        inputs, kernel = layer.equation.split("->")[0].split(",")
        n_inputs = sum(letter in inputs for letter in kernel)  # they come first in attention
        return gradient.reshape(np.prod(gradient.shape[:n_inputs]), -1)
    return gradient.reshape(-1, gradient.shape[-1] if gradient.ndim else 1)


def recorded_weights(model):
    """Return `{(path, name): (layer, variable)}` of all that the log has."""
    pairs = model.spectral_log.rows[["layer", "weight"]].drop_duplicates().itertuples(index=False)
    known = {
        (site.path, variable.name): (site.layer, variable)
        for site in sites(model)
        for variable in own_variables(site.layer)
    }
    return {tuple(pair): known[tuple(pair)] for pair in pairs}


def assert_all_but_biases_are_recorded(model):
    recorded = {id(variable) for _, variable in recorded_weights(model).values()}
    missed = [v for v in model.trainable_variables if id(v) not in recorded]
    assert {v.name for v in missed} <= {"bias"}, [v.path for v in missed]


def assert_first_gradients_equal(model, gradients, tolerance=TOLERANCE):
    weights = [id(variable) for variable in model.trainable_variables]
    log = model.spectral_log.select(quantity="gradient", group="all", step=0)
    for (path, name), (layer, variable) in recorded_weights(model).items():
        matrix = as_matrix(layer, gradients[weights.index(id(variable))])
        wanted = singular_values(matrix, min(matrix.shape))
        (sigma,) = log.select(layer=path, weight=name).sigma
        found = np.zeros_like(wanted)  # fewer are kept where rows are fewer
        found[: np.isfinite(sigma).sum()] = sigma[np.isfinite(sigma)]
        assert np.abs(found - wanted).max() <= tolerance * wanted[0], (path, name, found, wanted)


def assert_groups_share_the_examples(log, groups=GROUPS):
    """Two groups that are all: each is there when present, their squared norms add up."""
    table = log.rows.set_index(["layer", "weight", "quantity", "step", "group"]).sort_index()
    assert table.index.is_unique
    for key, row in table.xs("all", level="group").iterrows():
        begin = BATCH * (key[-1] % 3)
        batch = groups[begin : begin + BATCH]
        parts = table.loc[key]
        sizes = {name: int((batch == name).sum()) for name in set(batch)}
        assert parts["n_examples"].to_dict() == {"all": len(batch), **sizes}
        norms, whole = parts.drop("all")["frobenius_norm"], row["frobenius_norm"]
        if key[2] != "gradient":
            assert np.square(norms).sum() == pytest.approx(whole**2, rel=1e-5)
        else:  # the triangle inequality, either way
            slack = 1e-5 * norms.sum()
            assert 2 * norms.max() - norms.sum() - slack <= whole <= norms.sum() + slack


def assert_weights_equal(model, plain, tolerance=0.0):
    for mine, theirs in zip(model.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=tolerance)


def watched_like_plain(make, x, y, weights=0.0, tolerance=TOLERANCE, **fitted):
    """Train both models that `make` returns for a class, compare, and return the watched one."""
    plain, model, fresh = make(keras.Model), make(ks.SpectralModel), make(keras.Model)
    history = trained(plain, x, y, **fitted)
    watched_history = trained(model, x, y, groups=GROUPS, **fitted)
    assert_weights_equal(model, plain, weights)
    assert weights or watched_history == history
    assert_first_gradients_equal(
        model, plain_gradients(fresh, *first_batch(x, y, fitted)), tolerance
    )
    assert_groups_share_the_examples(model.spectral_log)
    return model


@pytest.mark.parametrize(("way", "network"), list(parameters()))
def test_weights_are_those_of_a_plain_model_and_gradients_those_of_a_plain_tape(way, network):
    model = watched_like_plain(
        lambda cls: made(way, cls, network),
        *way.data(network),
        way.weights,
        way.tolerance,
        **way.fitted(network),
    )
    assert model.spectral_log.steps == list(range(6))
    assert_all_but_biases_are_recorded(model)


# --- what changes between two fits, or within one step ---


FROZEN = [
    pytest.param("short", "conv"),
    pytest.param("signals", "norm", marks=pytest.mark.slow),
    pytest.param("signals", "gru", marks=pytest.mark.slow),
    pytest.param("words", "embedding", marks=pytest.mark.slow),
    pytest.param("words", "mixing", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("network", "name"), FROZEN)
def test_a_layer_frozen_for_one_fit_has_no_rows_in_it_and_rows_again_after(network, name):
    network = NETWORKS[network]

    def thrice(cls):
        model = made(Way(), cls, network)
        (layer,) = (layer for layer in model.layers if layer.name.startswith(name))
        for trainable in (True, False, True):
            layer.trainable = trainable
            trained(compiled(model), network.x, Y, epochs=1)
        return model

    model = thrice(ks.SpectralModel)
    assert_weights_equal(model, thrice(keras.Model))
    log = model.spectral_log
    first, frozen, last = (
        {path.split("/")[0] for path in log.rows["layer"][log.rows["step"] // 3 == fit]}
        for fit in range(3)
    )
    assert first == last == frozen | {path for path in first if path.startswith(name)}
    assert frozen < first


def test_a_shuffled_dataset_brings_its_groups():
    network = NETWORKS["short"]
    plain, model, fresh = (
        made(Way(), cls, network) for cls in (keras.Model, ks.SpectralModel, keras.Model)
    )

    def shuffled(data):
        return data.shuffle(N, seed=4, reshuffle_each_iteration=False)

    def dataset(grouped):
        data = tf.data.Dataset.from_tensor_slices((network.x, Y))
        data = ks.with_groups(data, GROUPS) if grouped else data
        return shuffled(data).batch(BATCH).prefetch(2)

    for one in (plain, model):
        data = dataset(grouped=one is model)
        one.fit(data, epochs=2, shuffle=False, verbose=0, validation_data=dataset(grouped=False))
    assert_weights_equal(model, plain)
    order = np.array([int(k) for k in shuffled(tf.data.Dataset.range(N))])
    batch = (tf.constant(part[order[:BATCH]]) for part in (network.x, Y))
    assert_first_gradients_equal(model, plain_gradients(fresh, *batch, None))
    assert_groups_share_the_examples(model.spectral_log, GROUPS[order])


def test_single_batches_train_as_without_us():
    network = NETWORKS["short"]
    plain, model = (made(Way(), cls, network) for cls in (keras.Model, ks.SpectralModel))
    for one in (plain, model):
        for begin in (0, 8, 16, 0):
            one.train_on_batch(network.x[begin : begin + 8], Y[begin : begin + 8])
    assert_weights_equal(model, plain)
    assert model.spectral_log.steps == [0, 1, 2, 3]


class Steady(Chain):
    """Is punished for changing its mind: every layer is called again for the loss."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        moved = keras.tree.map_structure(lambda part: part + 0.1, x)
        moved = self(moved, training=training)
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        return loss + keras.ops.mean(keras.ops.square(moved - y_pred))


class Choosing(Chain):
    """Decides in Python: what is called, and how often."""

    deep = True

    def call(self, x, training=None):
        first, *others = self.chain
        x = first(x)
        if self.deep:
            for _ in range(2):
                x = chained(x, others[:1])
        if training:
            x = 1.5 * x
        return self.head(chained(x, others[1:]))


class Branching(Chain):
    """Decides on a tensor: one of two layers is called, in a branch of the graph."""

    def __init__(self, layers):
        super().__init__(layers)
        self.left, self.right = L.Dense(3, name="left"), L.Dense(3, name="right")
        for layer in (self.left, self.right):  # Keras builds none within a branch
            layer.build((None, 3))

    def call(self, x, training=None):
        x = chained(x, self.chain)
        positive = keras.ops.mean(x) > 0
        return self.head(keras.ops.cond(positive, lambda: self.left(x), lambda: self.right(x)))


def own_model(mixin, network):
    def make(cls):
        keras.utils.set_random_seed(1)
        model = own(mixin, cls)(network.layers())
        model(network.x[:1])
        return compiled(model)

    return make


@pytest.mark.parametrize("mixin", [Steady, Choosing])
def test_forward_passes_of_ones_own_are_watched_as_they_go(mixin):
    network = NETWORKS["short"]
    model = watched_like_plain(own_model(mixin, network), network.x, Y)
    assert_all_but_biases_are_recorded(model)
    calls = model.spectral_log.select(layer="norm", quantity="activation", group="all", step=0)
    assert list(calls.rows["n_rows"]) == [2 * 5 * BATCH]  # both calls, five positions


def test_layers_in_a_branch_of_the_graph_are_recorded_as_seen_from_outside_of_it():
    network = NETWORKS["short"]
    model = watched_like_plain(own_model(Branching, network), network.x, Y)
    assert_all_but_biases_are_recorded(model)
    whole = model.spectral_log.select(layer="left", quantity="activation", group="all", step=0)
    assert list(whole.rows["n_rows"]) == [7 * BATCH]  # the input of the model
