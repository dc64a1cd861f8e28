"""Looking at a trained model: the same numbers as training records, nothing changed."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_spectral as ks
from tests.oracles.mlp import activations_and_adjoints, singular_values


def data(n=20):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, 6)).astype("f")
    return x, rng.integers(0, 3, n), rng.choice(["HC", "SZ"], n)


def plain(dropout=0.0):
    inputs = keras.Input((6,))
    x = keras.layers.Dense(8, activation="relu", name="hidden")(inputs)
    x = keras.layers.Dropout(dropout)(x)
    return keras.Model(inputs, keras.layers.Dense(3, activation="softmax", name="output")(x))


def test_a_plain_keras_model_can_be_looked_at_and_is_left_alone():
    x, y, groups = data()
    model = plain(dropout=0.5)
    model.compile("adam", "sparse_categorical_crossentropy")
    before = [w.copy() for w in model.get_weights()]
    log = ks.introspect(model, x, y, groups=groups)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    a, d = activations_and_adjoints(before, ["relu"], x, y)
    for j, layer in enumerate(["hidden", "output"]):
        for group, rows in {"all": slice(None), "SZ": groups == "SZ"}.items():
            for quantity, matrix in {
                "activation": a[j][rows],
                "adjoint": d[j][rows],
                "gradient": a[j][rows].T @ d[j][rows],
            }.items():
                found = log.singular_values(layer, quantity, group)
                wanted = singular_values(matrix, len(found))
                assert np.abs(found - wanted).max() <= 1e-5 * wanted[0]


def test_batches_are_steps_and_datasets_bring_their_groups():
    x, y, groups = data()
    model = plain()
    model.compile("adam", "sparse_categorical_crossentropy")
    by_size = ks.introspect(model, x, y, groups=groups, batch_size=8)
    assert by_size.steps == [0, 1, 2]
    dataset = ks.with_groups(tf.data.Dataset.from_tensor_slices((x, y)).batch(8), groups)
    by_dataset = ks.introspect(model, dataset)
    np.testing.assert_allclose(by_size.sigma, by_dataset.sigma, rtol=1e-6, atol=1e-7)
    assert ks.introspect(model, dataset, steps=1).steps == [0]


def test_sample_weight_and_settings_are_used():
    x, y, groups = data()
    model = ks.SpectralModel.from_model(plain())
    model.compile(
        "adam", "sparse_categorical_crossentropy", spectra=ks.Spectra(quantities="adjoint")
    )
    one = ks.introspect(model, x, y, groups=groups)
    two = ks.introspect(model, x, y, groups=groups, sample_weight=np.full(20, 2.0, "f"))
    assert one.quantities == ["adjoint"]
    np.testing.assert_allclose(two.sigma, 2 * one.sigma, rtol=1e-6)
    assert len(ks.introspect(model, x, y, spectra=1)) == 6
    assert len(model.spectral_log) == 0


def test_errors_say_what_to_do():
    x, y, groups = data()
    with pytest.raises(ValueError, match=r"`model` must be compiled.*Try"):
        ks.introspect(plain(), x, y)
    model = plain()
    model.compile("adam", "sparse_categorical_crossentropy")
    with pytest.raises(ks.errors.GroupsError, match="20 examples"):
        ks.introspect(model, x, y, groups=groups[:19])
    with pytest.raises(ks.errors.GroupsError, match="inside"):
        ks.introspect(model, tf.data.Dataset.from_tensors((x, y)), groups=groups)
