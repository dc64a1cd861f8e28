"""Models that no one here wrote: every weight is captured, exactly, and training is left alone."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_spectral as ks
from keras_spectral.capture.alignment import aligned_sites
from keras_spectral.capture.calls import Backward
from keras_spectral.capture.sites import sites
from keras_spectral.capture.watching import WatchedForward
from keras_spectral.matrices.factors import WeightMatrices
from keras_spectral.matrices.members import Members

N, CLASSES = 4, 3
TOLERANCE = 1e-4
"""Of the gradient's norm, in float32."""

MODELS = {
    "ResNet50": (keras.applications.ResNet50, 32),
    "MobileNetV3Small": (keras.applications.MobileNetV3Small, 32),
    "EfficientNetV2B0": (keras.applications.EfficientNetV2B0, 32),
}
MASK = np.array([[1, 0], [0, 1], [1, 0], [0, 1]], bool)

pytestmark = pytest.mark.slow


def built(name):
    make, size = MODELS[name]
    # Layers are named alike then: TensorFlow adds in the order of names.
    keras.backend.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    model = make(weights=None, classes=CLASSES, input_shape=(size, size, 3))
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 255, (N, size, size, 3)).astype("f")
    return model, x, np.eye(CLASSES)[np.arange(N) % CLASSES].astype("f")


def as_matrix(gradient, shape):
    """Return a gradient as the matrix of a shape, whichever axes come first."""
    return np.asarray(gradient, float).reshape(shape)


@pytest.mark.parametrize("name", MODELS)
def test_group_gradients_of_a_partition_add_up_to_the_gradient_of_every_weight(name):
    model, x, y = built(name)
    watched = WatchedForward(aligned_sites([s for s in sites(model) if s.rule], model, x))
    with tf.GradientTape(persistent=True) as tape:
        with watched(tape.watch):
            prediction = model(x, training=True)
        loss = tf.reduce_mean(keras.losses.categorical_crossentropy(y, prediction))
    variables = {(site.path, weight): v for site in watched._sites for weight, v in site.weights}
    of_weights = tape.gradient(loss, [v.value for v in variables.values()])
    gradients = dict(zip(variables, of_weights, strict=True))
    backward = Backward(tf.constant(N), tf.constant(MASK, tf.uint8))
    factors = watched.factors(tape.gradient(loss, watched.outputs), backward)
    assert set(factors) == set(variables)
    captured = {id(v) for v in variables.values()}
    missed = [v.path for v in model.trainable_variables if id(v) not in captured]
    assert all(path.endswith("/bias") for path in missed), missed
    largest = max(float(tf.norm(g)) for g in gradients.values())
    for key, factor in factors.items():
        members = Members.of(np.asarray(MASK, bool))
        groups = range(1, members.n_groups)
        parts = np.stack([WeightMatrices(factor).gradient(members, g) for g in groups])
        wanted = as_matrix(gradients[key], parts.shape[1:])
        error = np.linalg.norm(np.sum(parts, axis=0) - wanted)
        assert error <= TOLERANCE * max(np.linalg.norm(wanted), 1e-3 * largest), key


@pytest.mark.parametrize("name", MODELS)
def test_a_step_is_recorded_whole_and_leaves_the_weights_of_a_plain_model(name):
    weights = []
    for record in (False, True):
        model, x, y = built(name)
        if record:
            model = ks.SpectralModel.from_model(model)
        options = {"spectra": ks.Spectra(strict=True)} if record else {}
        model.compile(keras.optimizers.SGD(0.01), "categorical_crossentropy", **options)
        extra = {"groups": ["a", "b", "a", "b"]} if record else {}
        keras.utils.set_random_seed(1)
        model.fit(x, y, batch_size=N, verbose=0, **extra)
        weights.append(model.get_weights())
    table = ks.coverage(model)
    assert (table["captured"] | (table["reason"] != "")).all()
    rows = model.spectral_log.rows
    recorded = set(zip(rows["layer"], rows["weight"], strict=True))
    named = table[table["captured"]]
    assert recorded == set(zip(named["layer"], named["weight"], strict=True))
    assert set(rows["group"]) == {"all", "a", "b"}
    for plain, watched in zip(*weights, strict=True):
        np.testing.assert_array_equal(watched, plain)


def encoder(model_class):
    hub = pytest.importorskip("keras_hub", reason="keras_hub is not installed")
    keras.backend.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,), dtype="int32")
    x = hub.layers.TokenAndPositionEmbedding(11, 6, 8, mask_zero=True)(inputs)
    for _ in range(2):
        x = hub.layers.TransformerEncoder(intermediate_dim=12, num_heads=2)(x)
    outputs = keras.layers.Dense(CLASSES, activation="softmax")(x[:, 0])
    return model_class(inputs, outputs, name="encoder")


@pytest.mark.filterwarnings("ignore:Layer 'position_embedding'")  # which drops the mask
def test_an_encoder_of_keras_hub_is_recorded_whole_and_trained_as_without_us():
    models = encoder(keras.Model), encoder(ks.SpectralModel)
    rng = np.random.default_rng(0)
    x, y = rng.integers(1, 11, (12, 6)), np.arange(12) % CLASSES
    x[:5, 4:] = 0
    for model in models:
        record = model is models[1]
        options = {"spectra": 1} if record else {}
        model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", **options)
        extra = {"groups": ["a", "b"] * 6} if record else {}
        keras.utils.set_random_seed(1)
        model.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0, **extra)
    plain, watched = models
    for mine, theirs in zip(watched.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    table = ks.coverage(watched)
    trained = table[table["trainable"]]
    assert set(trained.loc[~trained["captured"], "weight"]) <= {"bias"}
    rows = watched.spectral_log.rows
    named = table[table["captured"]]
    assert set(zip(rows["layer"], rows["weight"], strict=True)) == set(
        zip(named["layer"], named["weight"], strict=True)
    )
    first = encoder(keras.Model)
    with tf.GradientTape() as tape:
        prediction = first(x[:4], training=True)
        loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(y[:4], prediction))
    gradients = tape.gradient(loss, [v.value for v in first.trainable_variables])
    norms = {
        v.path: float(np.linalg.norm(tf.convert_to_tensor(g)))
        for v, g in zip(first.trainable_variables, gradients, strict=True)
    }
    step = rows[(rows["step"] == 0) & (rows["group"] == "all") & (rows["quantity"] == "gradient")]
    variables = {(s.path, name): v.path for s in sites(watched) for name, v in s.weights}
    assert len(step) == len(named)
    for row in step.itertuples():
        path = variables[row.layer, row.weight]
        assert row.frobenius_norm == pytest.approx(norms[path], rel=TOLERANCE, abs=1e-7), path
