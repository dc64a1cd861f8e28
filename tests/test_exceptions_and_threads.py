"""Exceptions in the middle of a step, and several threads: layers are left as they were.

A fuse sits in the model (in a layer's call, or in the activation of a recurrent cell) and raises
when armed. Whatever it raises and wherever, the attributes of every layer are those of before, what
was recorded so far is kept, and the same model trains on as a fresh one with its weights.
"""

import concurrent.futures
import functools

import keras
import numpy as np
import pytest

import keras_spectral as ks

L = keras.layers

N, BATCH = 24, 8
RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((N, 6, 3)).astype("f"), RNG.integers(0, 3, N)
GROUPS = np.array(["a", "b"] * (N // 2))


class Fuse:
    """Raises `error` while armed."""

    error = None

    def __call__(self, x):
        if self.error is not None:
            raise self.error
        return keras.ops.tanh(x)


class Fused(L.Layer):
    """A layer of no family with a weight, which may raise."""

    def __init__(self, fuse, **options):
        super().__init__(**options)
        self.fuse = fuse

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones", name="scale")

    def call(self, x):
        return self.fuse(self.scale * x)


def in_a_layer(fuse):
    return [L.Conv1D(4, 3, name="conv"), L.LSTM(3, name="lstm"), Fused(fuse, name="fused")]


def in_a_nested_layer(fuse):
    inner = [keras.Input((4, 4)), L.GRU(3, name="gru"), Fused(fuse, name="fused")]
    inner = keras.Sequential(inner, name="inner")
    return [L.Conv1D(4, 3, name="conv"), L.LayerNormalization(name="norm"), inner]


def in_an_lstm(fuse):
    return [L.LayerNormalization(name="norm"), L.LSTM(3, name="lstm", activation=fuse)]


def in_a_gru(fuse):
    return [L.Conv1D(4, 3, name="conv"), L.GRU(3, name="gru", recurrent_activation=fuse)]


def after_a_convolution(fuse):
    return [L.Conv1D(4, 6, name="conv"), Fused(fuse, name="fused"), L.Flatten()]


PLACES = [in_a_layer, in_a_nested_layer, in_an_lstm, in_a_gru]


def network(place, fuse):
    keras.utils.set_random_seed(1)
    inputs = keras.Input(X.shape[1:])
    x = inputs
    for layer in place(fuse):
        x = layer(x)
    model = ks.SpectralModel(inputs, L.Dense(3, activation="softmax", name="head")(x))
    model(X[:1], training=True)  # cells make themselves attributes for dropout when first called
    return model


def compiled(model, **options):
    loss = "sparse_categorical_crossentropy"
    model.compile(keras.optimizers.SGD(0.1), loss, spectra=1, **options)
    return model


def fit(model, **options):
    arguments = {"groups": GROUPS, "batch_size": BATCH, "shuffle": False, "verbose": 0}
    model.fit(X, Y, **arguments | options)
    return model.spectral_log


def attributes_of(model):
    """Return what every layer holds, by layer and name."""
    layers = list(model._flatten_layers(include_self=False))
    return {(k, name): held for k, layer in enumerate(layers) for name, held in vars(layer).items()}


def assert_as_before(model, before):
    after = attributes_of(model)
    assert after.keys() == before.keys()
    changed = {name for name in before if after[name] is not before[name]}
    assert not changed


class ArmedAt(keras.callbacks.Callback):
    """Arms a fuse before a batch."""

    def __init__(self, fuse, batch, error):
        super().__init__()
        self.fuse, self.batch, self.to_raise = fuse, batch, error

    def on_train_batch_begin(self, batch, logs=None):
        if batch == self.batch:
            self.fuse.error = self.to_raise


class Stopping(keras.callbacks.Callback):
    """Interrupts after a batch, as a user does."""

    def on_train_batch_end(self, batch, logs=None):
        if batch == 1:
            raise KeyboardInterrupt


def assert_trains_on_like_a_fresh_one(model, fresh):
    fresh.set_weights(model.get_weights())
    n_steps = len(model.spectral_log.steps)
    log, wanted = fit(model), fit(fresh)
    assert log.steps == list(range(n_steps + 3))
    assert_equal(log.after(len(log) - len(wanted)), wanted)
    for mine, theirs in zip(model.get_weights(), fresh.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def assert_equal(log, wanted):
    columns = ["layer", "weight", "quantity", "group", "n_rows", "frobenius_norm"]
    assert log.rows[columns].reset_index(drop=True).equals(wanted.rows[columns])
    np.testing.assert_array_equal(log.sigma, wanted.sigma)


ERRORS = [RuntimeError("blown"), KeyboardInterrupt()]


@pytest.mark.parametrize("error", ERRORS, ids=repr)
@pytest.mark.parametrize("place", PLACES)
def test_an_exception_in_the_third_step_costs_nothing_but_that_step(place, error):
    fuse = Fuse()
    model = compiled(network(place, fuse), run_eagerly=True)
    before = attributes_of(model)
    with pytest.raises(type(error)):
        fit(model, callbacks=[ArmedAt(fuse, 2, error)])
    fuse.error = None
    assert_as_before(model, before)
    assert model.spectral_log.steps == [0, 1]
    fresh = compiled(network(place, fuse), run_eagerly=True)
    assert_trains_on_like_a_fresh_one(model, fresh)


QUICK = [(in_a_nested_layer, RuntimeError), (in_an_lstm, KeyboardInterrupt)]

TRACED = [
    pytest.param(
        place,
        error,
        marks=() if (place, type(error)) in QUICK else pytest.mark.slow,
        id=f"{place.__name__}-{error!r}",
    )
    for place in PLACES
    for error in ERRORS
]


@pytest.mark.parametrize(("place", "error"), TRACED)
def test_an_exception_while_the_graph_is_traced_leaves_the_model_as_it_was(place, error):
    fuse = Fuse()
    model = compiled(network(place, fuse))
    before = attributes_of(model)
    fuse.error = error
    with pytest.raises(type(error)):
        fit(model)
    fuse.error = None
    assert_as_before(model, before)
    assert len(model.spectral_log) == 0
    log = fit(compiled(model))  # Keras cannot go on with half a graph
    assert log.steps == [0, 1, 2]
    assert ks.coverage(model).query("weight != 'bias'")["captured"].all()
    assert_as_before(model, before)


@pytest.mark.parametrize("run_eagerly", [True, False])
def test_an_interrupt_between_two_steps_loses_none_of_them(run_eagerly):
    model = compiled(network(after_a_convolution, Fuse()), run_eagerly=run_eagerly)
    before = attributes_of(model)
    with pytest.raises(KeyboardInterrupt):
        fit(model, callbacks=[Stopping()])
    assert_as_before(model, before)
    assert model.spectral_log.steps == [0, 1]
    assert fit(model).steps == [0, 1, 2, 3, 4]


def run_together(*functions):
    """Return what functions return that run in threads of their own; raise what they raise."""
    with concurrent.futures.ThreadPoolExecutor(len(functions)) as threads:
        return [future.result() for future in [threads.submit(f) for f in functions]]


def test_two_models_trained_at_once_are_recorded_as_each_alone():
    def models():
        yield compiled(network(in_a_layer, Fuse()))
        yield compiled(network(in_a_gru, Fuse()))

    alone = [fit(model) for model in models()]
    together = run_together(*(functools.partial(fit, model) for model in models()))
    for log, wanted in zip(together, alone, strict=True):
        assert_equal(log, wanted)
