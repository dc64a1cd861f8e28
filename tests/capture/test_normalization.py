"""Normalisations, against per-example tapes, NumPy, and what training does to their weights."""

import keras
import numpy as np
import pytest

import keras_spectral as ks
from tests.capture.examples import MASK, N, assert_gradients_equal, example, recorded
from tests.oracles.layers import example_gradients

L = keras.layers


class AtRest(L.Layer):
    """Normalises by moving averages even in training."""

    def __init__(self):
        super().__init__()
        self.batch = L.BatchNormalization()

    def call(self, x):
        return self.batch(x, training=False)


# layer, shape of one input; examples do not meet
APART = {
    "layer": (lambda: L.LayerNormalization(), (4, 5)),
    "layer, of a matrix": (lambda: L.LayerNormalization(), (5,)),
    "layer, another axis": (lambda: L.LayerNormalization(axis=1), (4, 5)),
    "layer, no shift": (lambda: L.LayerNormalization(center=False), (3, 2, 5)),
    "layer, no scale": (lambda: L.LayerNormalization(scale=False), (3, 2, 5)),
    "group": (lambda: L.GroupNormalization(2), (4, 6)),
    "group, another axis": (lambda: L.GroupNormalization(2, axis=1), (4, 3, 5)),
    "mean square": (lambda: L.RMSNormalization(), (4, 5)),
    "batch, as it predicts": (lambda: AtRest(), (4, 5)),
    "in float64": (lambda: L.LayerNormalization(dtype="float64"), (4, 5)),
    "regularised": (lambda: L.GroupNormalization(2, gamma_regularizer="l2"), (4, 6)),
}


def with_random_weights(layer):
    """Give every variable a value that matters; the first trained number is 0."""
    rng = np.random.default_rng(2)
    for variable in layer.variables:
        variable.assign(rng.uniform(0.5, 2.0, variable.shape))
    first = layer.trainable_variables[0]
    first.assign(np.where(np.arange(first.numpy().size).reshape(first.shape) == 0, 0.0, first))


def rules(model):
    return set(ks.coverage(model).query("captured")["how"])


@pytest.mark.parametrize("mode", ["graph", pytest.param("xla", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", APART)
def test_where_examples_do_not_meet_gradients_equal_those_of_tapes(name, mode):
    model, x, y = example(*APART[name])
    with_random_weights(model)
    weights = model.trainable_variables
    gradients = example_gradients(model, x, y, [weight.value for weight in weights])
    log = recorded(model, x, y, jit_compile=mode == "xla")
    assert rules(model) == {"NormalizationRule"}
    assert_gradients_equal(log, weights, gradients)


@pytest.mark.parametrize("axis", [-1, 1, 2])
@pytest.mark.parametrize("mode", ["graph", pytest.param("xla", marks=pytest.mark.slow)])
def test_where_examples_meet_it_is_the_part_that_leaves_by_the_rows_of_a_group(axis, mode):
    model, x, y = example(lambda: L.BatchNormalization(axis=axis), (4, 5))
    with_random_weights(model)
    layer = model.layers[-1]
    others = tuple(k for k in range(3) if k != axis % 3)
    gamma, beta = (np.expand_dims(w.numpy(), others) for w in (layer.gamma, layer.beta))
    wide = x.astype(float)
    spread = np.sqrt(wide.var(axis=others, keepdims=True) + layer.epsilon)
    normal = (wide - wide.mean(axis=others, keepdims=True)) / spread
    delta = 2 * (gamma * normal + beta - y) / y.size
    log = recorded(model, x, y, jit_compile=mode == "xla")
    assert rules(model) == {"NormalizationRule"}
    gradients = [part.sum(axis=others[1:]) for part in (delta * normal, delta)]
    assert_gradients_equal(log, layer.trainable_variables, gradients)


def test_a_layer_called_twice_in_a_row_has_the_gradients_of_both_calls_once():
    layer, inputs = L.LayerNormalization(), keras.Input((5,))
    model = ks.SpectralModel(inputs, layer(L.Dense(5, activation="tanh")(layer(inputs))))
    with_random_weights(layer)
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal((N, 5)).astype("f") for _ in range(2))
    log = recorded(model, x, y, spectra=ks.Spectra(layers="layer_normalization*"))
    gradients = example_gradients(model, x, y, [weight.value for weight in layer.weights])
    assert_gradients_equal(log, layer.weights, gradients)


@pytest.mark.parametrize("frozen", ["gamma", "beta"])
def test_of_two_weights_one_may_be_frozen(frozen):
    model, x, y = example(lambda: L.LayerNormalization(), (4, 5))
    with_random_weights(model)
    getattr(model.layers[-1], frozen).trainable = False
    weights = model.trainable_variables
    assert len(weights) == 1
    gradients = example_gradients(model, x, y, [weight.value for weight in weights])
    assert_gradients_equal(recorded(model, x, y), weights, gradients)


class Mine(L.BatchNormalization):
    """One that keeps the `call` of its parent, and may change anything else."""


RATE = 0.01


@pytest.mark.parametrize("kind", [L.BatchNormalization, Mine])
@pytest.mark.parametrize("gradients", ["factors", "per_example"])
@pytest.mark.parametrize(
    "options",
    [{}, {"renorm": True, "renorm_clipping": {"rmin": 0.1, "rmax": 10, "dmax": 10}}],
    ids=["plain", "with averages of the past"],
)
def test_what_is_recorded_is_what_training_does_to_the_weights(options, gradients, kind):
    layer, inputs = kind(momentum=0.5, name="normal", **options), keras.Input((6, 3))
    model = ks.SpectralModel(inputs, L.Dense(2)(L.Flatten()(layer(inputs))))
    rng = np.random.default_rng(0)
    x = (3 * rng.standard_normal((N, 6, 3)) + 2).astype("f")
    y = rng.standard_normal((N, 2)).astype("f")
    spectra = ks.Spectra(layers="normal", gradients=gradients)
    model.compile(keras.optimizers.SGD(RATE), "mse", spectra=spectra)
    values = [layer.get_weights()[:2]]
    keep = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: values.append(layer.get_weights()[:2])
    )
    fit = dict(groups=MASK, batch_size=N, epochs=4, shuffle=False, verbose=0)
    model.fit(x, y, callbacks=[keep], **fit)
    for k, weight in enumerate(("gamma", "beta")):
        steps = np.diff([pair[k] for pair in values], axis=0) / RATE
        log = model.spectral_log.select(weight=weight, quantity="gradient", group="all")
        np.testing.assert_allclose(
            log.sigma[:, 0], np.linalg.norm(steps, axis=1), rtol=1e-3, atol=1e-5
        )


LEFT = {
    "several axes": (lambda: L.LayerNormalization([1, 2]), (4, 5)),
    "scaled along the last axis, normalised along another": (
        lambda: L.RMSNormalization(axis=1),
        (5, 5),
    ),
    "a subclass": (lambda: Mine(), (4, 5)),
}


@pytest.mark.parametrize("name", LEFT)
def test_what_is_left_to_the_generic_rule(name):
    model, x, y = example(*LEFT[name])
    with_random_weights(model)
    assert rules(model) == {"GenericRule"}
    if name != "a subclass":
        weights = model.trainable_variables
        gradients = example_gradients(model, x, y, [weight.value for weight in weights])
        assert_gradients_equal(recorded(model, x, y), weights, gradients)


@pytest.mark.parametrize("layer", [L.LayerNormalization, L.PReLU], ids=["own rule", "generic"])
def test_a_scaled_loss_leaves_float64_its_digits(layer):
    model, x, y = example(lambda: layer(dtype="float64"), (4, 5))
    with_random_weights(model)
    weights = model.trainable_variables
    gradients = example_gradients(model, x, y, [weight.value for weight in weights])
    model.compile(keras.optimizers.SGD(loss_scale_factor=100.0), "mse", spectra=1)
    model.fit(x, y, groups=MASK, batch_size=N, shuffle=False, verbose=0)
    assert_gradients_equal(model.spectral_log, weights, gradients)


@pytest.mark.parametrize("policy", ["mixed_float16", "bfloat16"])
def test_half_precision_is_left_to_the_generic_rule(policy):
    model, _, _ = example(lambda: L.LayerNormalization(dtype=policy), (4, 5))
    assert rules(model) == {"GenericRule"}
