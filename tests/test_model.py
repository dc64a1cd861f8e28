"""Making, saving, loading and cloning models; every kind of model that Keras knows."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_spectral as ks


def data(n=20):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, 6)).astype("f")
    return x, rng.integers(0, 3, n), rng.choice(["HC", "SZ"], n)


def tensors():
    inputs = keras.Input((6,))
    x = keras.layers.Dense(8, activation="relu", name="hidden")(inputs)
    return inputs, keras.layers.Dense(3, activation="softmax", name="output")(x)


def fitted(model, **options):
    x, y, groups = data()
    model.compile("adam", "sparse_categorical_crossentropy", **{"spectra": 1, **options})
    model.fit(x, y, groups=groups, verbose=0)
    return model


@keras.saving.register_keras_serializable("tests")
class Own(ks.SpectralModel):
    def __init__(self, units=4, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.hidden = keras.layers.Dense(units, activation="tanh", name="hidden")
        self.out = keras.layers.Dense(3, activation="softmax", name="out")

    def call(self, x):
        return self.out(self.hidden(x))

    def get_config(self):
        return {"units": self.units, "name": self.name}


class FunctionalSubclass(ks.SpectralModel):
    """A user's subclass that is built from tensors."""


def test_functional_and_subclassed_models_live_side_by_side():
    functional = fitted(ks.SpectralModel(*tensors()))
    own_functional = fitted(FunctionalSubclass(*tensors()))
    subclassed = fitted(Own())
    again = fitted(ks.SpectralModel(*tensors()))
    assert all(isinstance(m, ks.SpectralModel) for m in (functional, own_functional, subclassed))
    assert isinstance(own_functional, FunctionalSubclass)
    assert subclassed.spectral_log.layers == ["hidden", "out"]
    for model in (functional, own_functional, again):
        assert model.spectral_log.layers == ["hidden", "output"]


def test_keyword_tensors_make_a_functional_model_too():
    inputs, outputs = tensors()
    model = ks.SpectralModel(inputs=inputs, outputs=outputs, name="mine")
    assert model.name == "mine"
    assert fitted(model).spectral_log.layers == ["hidden", "output"]


@pytest.mark.parametrize("kind", ["functional", "sequential", "unbuilt sequential", "subclassed"])
def test_from_model_shares_layers_of_any_model(kind):
    class Plain(keras.Model):
        def __init__(self):
            super().__init__()
            self.d = keras.layers.Dense(3, activation="softmax", name="output")

        def call(self, x, training=None):
            return self.d(x)

    dense = [keras.layers.Dense(3, activation="softmax", name="output")]
    model = {
        "functional": lambda: keras.Model(*tensors()),
        "sequential": lambda: keras.Sequential([keras.Input((6,)), *dense]),
        "unbuilt sequential": lambda: keras.Sequential(dense),
        "subclassed": Plain,
    }[kind]()
    watched = fitted(ks.SpectralModel.from_model(model))
    assert watched.spectral_log.layers[-1] == "output"
    for mine, original in zip(watched.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, original)


def test_from_model_refuses_what_would_be_lost():
    class OwnStep(keras.Model):
        def train_step(self, data):
            return {}

    with pytest.raises(ValueError, match="`train_step` of its own"):
        ks.SpectralModel.from_model(OwnStep())

    class OwnLoss(keras.Model):
        def compute_loss(self, *args, **kwargs):
            return 1000 * super().compute_loss(*args, **kwargs)

    with pytest.raises(ValueError, match="`compute_loss` of its own"):
        ks.SpectralModel.from_model(OwnLoss())
    with pytest.raises(ValueError, match=r"must be a keras\.Model"):
        ks.SpectralModel.from_model("model.keras")


def test_nested_models_have_paths_and_equal_names_are_told_apart():
    def block(name):
        return keras.Sequential([keras.Input((6,)), keras.layers.Dense(6, name="dense")], name=name)

    inputs = keras.Input((6,))
    x = block("second")(block("first")(inputs))
    model = ks.SpectralModel(inputs, keras.layers.Dense(3, activation="softmax", name="dense")(x))
    log = fitted(model).spectral_log
    assert sorted(log.layers) == ["dense", "first/dense", "second/dense"]

    class Twins(ks.SpectralModel):
        def __init__(self):
            super().__init__()
            self.a, self.b = (keras.layers.Dense(3, name="twin") for _ in range(2))

        def call(self, x):
            return keras.ops.softmax(self.b(self.a(x)))

    assert fitted(Twins()).spectral_log.layers == ["twin", "twin#2"]


def test_a_shared_layer_has_the_rows_of_all_its_calls():
    inputs = keras.Input((6,))
    shared = keras.layers.Dense(6, name="shared", use_bias=False)
    hidden = shared(inputs)
    output = keras.layers.Dense(3, activation="softmax", name="out")(shared(hidden))
    model = ks.SpectralModel(inputs, output)
    x, y, groups = data()
    model.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy", spectra=1)
    model.fit(x, y, groups=groups, verbose=0, batch_size=20, shuffle=False)
    log = model.spectral_log
    kernel = np.asarray(shared.kernel, float)
    stacked = np.concatenate([x, x @ kernel])
    wanted = np.linalg.svd(stacked, compute_uv=False)
    np.testing.assert_allclose(log.singular_values("shared", "activation"), wanted, rtol=1e-5)
    row = log.select(layer="shared", group="SZ").rows.iloc[0]
    assert row["n_rows"] == 2 * row["n_examples"]
    import tensorflow as tf

    with tf.GradientTape() as tape:
        loss = keras.losses.sparse_categorical_crossentropy(y, model(x))
        loss = tf.reduce_mean(loss)
    gradient = tape.gradient(loss, shared.kernel.value)
    wanted = np.linalg.svd(gradient.numpy().astype(float), compute_uv=False)
    found = log.singular_values("shared", "gradient")
    assert np.abs(found - wanted).max() <= 1e-5 * wanted[0]


def test_inputs_of_more_axes_have_a_row_per_position():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((12, 5, 4)).astype("f")
    inputs = keras.Input((5, 4))
    h = keras.layers.Dense(7, name="d", activation="tanh")(inputs)
    model = ks.SpectralModel(inputs, keras.layers.GlobalAveragePooling1D()(h))
    model.compile("sgd", "mse", spectra=1)
    model.fit(x, np.zeros((12, 7)), groups=rng.choice(["a", "b"], 12), verbose=0, shuffle=False)
    rows = model.spectral_log.rows
    assert (rows["n_rows"] == 5 * rows["n_examples"]).all()
    wanted = np.linalg.svd(x.reshape(60, 4).astype(float), compute_uv=False)
    found = model.spectral_log.singular_values("d", "activation")
    np.testing.assert_allclose(found, wanted, rtol=1e-6)


def test_sequences_of_unknown_length_are_recorded():
    inputs = keras.Input((None, 4))
    h = keras.layers.Dense(3, name="d")(inputs)
    model = ks.SpectralModel(inputs, keras.layers.GlobalAveragePooling1D()(h))
    model.compile("sgd", "mse", spectra=1)
    for length in (5, 2):
        x = np.random.default_rng(0).standard_normal((6, length, 4)).astype("f")
        model.fit(x, np.zeros((6, 3)), verbose=0)
    assert model.spectral_log.rows.groupby("step")["n_rows"].first().tolist() == [30, 12]


def test_a_layer_whose_leading_axis_is_not_the_example_is_seen_at_the_model():
    inputs = keras.Input((5, 4))
    folded = keras.ops.reshape(inputs, (-1, 4))
    layer = keras.layers.Dense(3, name="folded")
    back = keras.ops.reshape(layer(folded), (-1, 15))
    model = ks.SpectralModel(inputs, keras.layers.Dense(2, name="out")(back))
    model.compile(keras.optimizers.SGD(0.0), "mse", spectra=1)
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((6, 5, 4)).astype("f"), rng.standard_normal((6, 2)).astype("f")
    groups = np.array(list("aababb"))
    model.fit(x, y, groups=groups, shuffle=False, verbose=0)
    for group in "ab":
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(model(x) - y)[groups == group]) / y.size
        wanted = np.linalg.svd(tape.gradient(loss, layer.kernel.value), compute_uv=False)
        found = model.spectral_log.select(
            layer="folded", weight="kernel", quantity="gradient", group=group
        )
        np.testing.assert_allclose(found.sigma[0][:3], wanted, rtol=1e-5, atol=1e-6 * wanted[0])


@pytest.mark.parametrize("structure", ["list", "dict"])
def test_several_inputs_and_outputs(structure):
    a, b = keras.Input((4,), name="a"), keras.Input((3,), name="b")
    h = keras.layers.Dense(5, name="h")(keras.layers.Concatenate()([a, b]))
    outputs = {
        "p": keras.layers.Dense(2, name="p", activation="softmax")(h),
        "q": keras.layers.Dense(1, name="q")(h),
    }
    inputs = [a, b] if structure == "list" else {"a": a, "b": b}
    rng = np.random.default_rng(0)
    xa, xb = rng.standard_normal((12, 4)), rng.standard_normal((12, 3))
    x = [xa, xb] if structure == "list" else {"a": xa, "b": xb}
    y = {"p": rng.integers(0, 2, 12), "q": rng.standard_normal((12, 1))}
    loss = {"p": "sparse_categorical_crossentropy", "q": "mse"}
    groups = rng.choice(["g1", "g2"], 12)
    options = {"verbose": 0, "validation_split": 0.25}
    plain = keras.Model(inputs, outputs)
    start = plain.get_weights()
    plain.compile("sgd", loss, loss_weights={"p": 1.0, "q": 2.0})
    keras.utils.set_random_seed(0)
    plain.fit(x, y, **options)
    trained = plain.get_weights()
    model = ks.SpectralModel.from_model(plain)
    model.set_weights(start)
    model.compile("sgd", loss, loss_weights={"p": 1.0, "q": 2.0}, spectra=1)
    keras.utils.set_random_seed(0)
    model.fit(x, y, groups=groups, **options)
    for mine, theirs in zip(model.get_weights(), trained, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    log = model.spectral_log
    assert set(log.layers) == {"h", "p", "q"}
    assert log.groups == ["all", "g1", "g2"]
    assert (log.rows["batch_size"] == 9).all()
    seen = ks.introspect(model, x, y, groups=groups)
    assert set(seen.layers) == {"h", "p", "q"}


def test_no_bias_no_activation_and_an_activation_layer_are_captured():
    inputs = keras.Input((6,))
    x = keras.layers.Dense(5, use_bias=False, name="bare")(inputs)
    x = keras.layers.Dense(4, activation=keras.layers.LeakyReLU(), name="leaky")(x)
    model = fitted(ks.SpectralModel(inputs, keras.layers.Dense(3, activation="softmax")(x)))
    assert model.spectral_log.layers[:2] == ["bare", "leaky"]
    assert ks.coverage(model).query("weight == 'kernel'")["captured"].all()


def test_a_subclass_of_dense_with_its_own_call_is_not_captured_by_the_rule():
    class Twice(keras.layers.Dense):
        def call(self, x):
            return 2 * super().call(x)

    inputs = keras.Input((6,))
    model = ks.SpectralModel(inputs, Twice(3, name="twice", activation="softmax")(inputs))
    fitted(model)
    how = ks.coverage(model).set_index(["layer", "weight"])["how"]
    assert how["twice", "kernel"] == "GenericRule"
    assert set(model.spectral_log.rows["weight"]) == {"kernel", "bias"}


def test_of_lora_the_low_rank_weights_are_recorded_and_of_quantised_layers_no_kernel():
    model = ks.SpectralModel(*tensors())
    model.get_layer("hidden").enable_lora(2)
    reasons = ks.coverage(model).set_index(["layer", "weight"])["reason"]
    assert reasons["hidden", "kernel"] == "not trainable"
    fitted(model)
    rows = model.spectral_log.rows
    recorded = set(rows[rows["layer"] == "hidden"]["weight"])
    assert recorded == {"bias", "lora_kernel_a", "lora_kernel_b"}
    model.get_layer("output").quantize("int8")
    rows = ks.coverage(model).query("layer == 'output'").set_index("weight")
    assert rows.loc["kernel", "reason"] == "not trainable"


@pytest.mark.parametrize("make", [lambda: ks.SpectralModel(*tensors()), Own], ids=["f", "subclass"])
def test_a_saved_model_loads_with_its_settings_and_goes_on_counting(tmp_path, make):
    settings = ks.Spectra(every=2, quantities="gradient", top_k=3)
    model = fitted(make(), spectra=settings)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded) is type(model)
    assert loaded.spectral_logger.settings == settings
    x, y, _ = data()
    loaded.fit(x, y, verbose=0, epochs=4, batch_size=20)
    assert loaded.spectral_log.steps == [2, 4]  # 1 step before saving, steps 1..4 now


def test_a_wrapped_model_saves_and_loads(tmp_path):
    wrapped = fitted(ks.SpectralModel.from_model(Own()))
    wrapped.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    x = data()[0]
    np.testing.assert_array_equal(loaded(x), wrapped(x))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_settings_that_cannot_be_saved_do_not_lose_the_model(tmp_path):
    model = fitted(
        ks.SpectralModel(*tensors()), spectra=ks.Spectra(layers=lambda layer: layer.units == 3)
    )
    with pytest.warns(UserWarning, match="will record nothing"):
        model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.spectral_logger is None


def test_a_clone_is_a_spectral_model():
    clone = keras.models.clone_model(ks.SpectralModel(*tensors()))
    assert isinstance(clone, ks.SpectralModel)
    assert fitted(clone).spectral_log.layers == ["hidden", "output"]


def test_a_saved_model_gives_the_same_spectra_in_a_new_process(tmp_path):
    model = fitted(ks.SpectralModel(*tensors()))
    x, y, groups = data()
    ks.introspect(model, x, y, groups=groups).to_csv(tmp_path / "here.csv")
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "data.npz", x=x, y=y, groups=groups)
    script = """
import sys, keras, numpy as np, keras_spectral as ks
folder = sys.argv[1]
data = np.load(folder + "/data.npz")
import keras_spectral.model
model = keras.models.load_model(folder + "/model.keras")
log = ks.introspect(model, data["x"], data["y"], groups=data["groups"])
log.to_csv(folder + "/there.csv")
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, capture_output=True)
    here, there = (ks.read_log(tmp_path / name) for name in ("here.csv", "there.csv"))
    assert np.nanmax(np.abs(here.sigma - there.sigma)) <= 1e-6
    assert len(here) == len(there) == 18
