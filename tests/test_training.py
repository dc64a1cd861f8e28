"""Training with spectra: the same weights, every way of calling `fit`, nothing left behind."""

import contextlib
import os
import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_spectral as ks


def data(n=50, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 6)).astype("f")
    return x, rng.integers(0, 3, n), rng.choice(["HC", "SZ"], n)


def tensors(dropout=0.0, **dense):
    inputs = keras.Input((6,))
    x = keras.layers.Dense(8, activation="relu", name="hidden", **dense)(inputs)
    x = keras.layers.Dropout(dropout)(x) if dropout else x
    return inputs, keras.layers.Dense(3, activation="softmax", name="output")(x)


class TwoLayers:
    """Built when first called; the same for a plain and a spectral model."""

    def __init__(self):
        super().__init__()
        self.hidden = keras.layers.Dense(8, activation="relu", name="hidden")
        self.drop = keras.layers.Dropout(0.3)
        self.out = keras.layers.Dense(3, activation="softmax", name="output")

    def call(self, x, training=None):
        return self.out(self.drop(self.hidden(x), training=training))


class PlainSubclassed(TwoLayers, keras.Model):
    pass


class Subclassed(TwoLayers, ks.SpectralModel):
    pass


def trained(model, groups=None, epochs=3, seed=3, fit=None, **options):
    x, y, _ = data()
    options.setdefault("optimizer", keras.optimizers.Adam(0.01))
    if isinstance(model, ks.SpectralModel):
        options.setdefault("spectra", 1)
    model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"], **options)
    keras.utils.set_random_seed(seed)
    extra = {} if groups is None else {"groups": groups}
    arguments = {"batch_size": 16, "epochs": epochs, "verbose": 0} | (fit or {})
    history = model.fit(x, y, **arguments, **extra)
    return model.get_weights(), history.history


def built(make):
    keras.utils.set_random_seed(1)
    return make()


WAYS = {
    "graph": {},
    "eager": {"run_eagerly": True},
    "several steps per execution": {"steps_per_execution": 3},
    "gradient accumulation": {
        "optimizer": lambda: keras.optimizers.Adam(0.01, gradient_accumulation_steps=2)
    },
    "loss scaling": {"optimizer": lambda: keras.optimizers.Adam(0.01, loss_scale_factor=8.0)},
    "weight decay": {"optimizer": lambda: keras.optimizers.AdamW(0.01)},
    "xla": {"jit_compile": True},
}


def options_of(way):
    return {k: v() if callable(v) else v for k, v in WAYS[way].items()}


@pytest.mark.parametrize("way", WAYS)
def test_weights_and_history_equal_those_of_a_plain_model_bit_for_bit(way):
    groups = data()[2]
    make = lambda cls: lambda: cls(*tensors(dropout=0.3, kernel_regularizer="l2"))  # noqa: E731
    weights, history = trained(built(make(keras.Model)), **options_of(way))
    watched = built(make(ks.SpectralModel))
    watched_weights, watched_history = trained(watched, groups, **options_of(way))
    for plain, mine in zip(weights, watched_weights, strict=True):
        np.testing.assert_array_equal(mine, plain)
    assert watched_history == history
    assert len(watched.spectral_log.steps) == 12


WIDE = """
import keras, numpy as np, keras_spectral as ks
L = keras.layers
rng = np.random.default_rng(0)
x, y = rng.standard_normal((192, 64, 32), "float32"), rng.integers(0, 2, 192)
def trained(cls, **watched):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((64, 32))
    hidden = L.Flatten()(L.Conv1D(48, 5, activation="relu")(inputs))
    hidden = L.Dense(512, activation="relu")(hidden)
    model = cls(inputs, L.Dense(2, activation="softmax")(hidden))
    spectra = {"spectra": 1} if watched else {}
    model.compile("adam", "sparse_categorical_crossentropy", **spectra)
    model.fit(x, y, batch_size=64, epochs=2, verbose=0, **watched)
    return model.get_weights()
for plain, mine in zip(trained(keras.Model), trained(ks.SpectralModel, groups=y), strict=True):
    np.testing.assert_array_equal(mine, plain)
"""


def test_weights_are_the_same_where_an_operation_takes_all_cores():
    every_core = {name: v for name, v in os.environ.items() if "THREADS" not in name}
    done = subprocess.run(
        [sys.executable, "-c", WIDE], env=every_core, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-1000:]


def test_an_unbuilt_subclassed_model_trains_as_without_us():
    weights, history = trained(built(PlainSubclassed))
    watched = built(Subclassed)
    watched_weights, watched_history = trained(watched, data()[2])
    for plain, mine in zip(weights, watched_weights, strict=True):
        np.testing.assert_array_equal(mine, plain)
    assert watched_history == history
    assert watched.spectral_log.layers == ["hidden", "output"]


@pytest.mark.parametrize("way", ["eager", "several steps per execution", "xla"])
def test_every_way_of_running_gives_the_same_records(way):
    groups = data()[2]
    logs = []
    for options in ({}, options_of(way)):
        model = built(lambda: ks.SpectralModel(*tensors()))
        trained(model, groups, **options)
        logs.append(model.spectral_log)
    assert (
        logs[0]
        .rows.drop(columns="frobenius_norm")
        .equals(logs[1].rows.drop(columns="frobenius_norm"))
    )
    # XLA fuses and so rounds differently; the other ways run the same kernels.
    tolerance = 1e-5 if way == "xla" else 0
    scale = np.nanmax(logs[0].sigma, axis=1, keepdims=True)
    assert np.nanmax(np.abs(logs[0].sigma - logs[1].sigma) / scale) <= tolerance


def test_layers_are_left_as_they_were_also_after_an_exception():
    class Raises(keras.layers.Layer):
        def call(self, x):
            raise RuntimeError("in the middle of a step")

    layer = keras.layers.Dense(3)

    class Model(ks.SpectralModel):
        def __init__(self):
            super().__init__()
            self.dense, self.raises = layer, Raises()

        def call(self, x):
            return self.raises(self.dense(x))

    model = Model()
    layer.build((None, 6))
    before = dict(layer.__dict__)
    model.compile("sgd", "mse", spectra=1, run_eagerly=True)
    with pytest.raises(RuntimeError, match="in the middle"):
        model.fit(*data()[:2], verbose=0)
    changed = {k for k in layer.__dict__ if layer.__dict__[k] is not before.get(k)}
    assert "call" not in layer.__dict__
    assert "activation" not in changed


def test_layers_are_left_as_they_were_after_training():
    model = ks.SpectralModel(*tensors())
    layer = model.get_layer("hidden")
    activation = layer.activation
    trained(model, data()[2])
    assert "call" not in layer.__dict__
    assert layer.activation is activation


def test_spectra_none_makes_a_plain_model():
    model = ks.SpectralModel(*tensors())
    trained(model, data()[2], spectra=None)
    assert model.spectral_logger is None
    with pytest.raises(ks.errors.SettingsError, match="spectra"):
        model.spectral_log  # noqa: B018


@pytest.mark.parametrize("spectra", ["every", True, [1, 2], 0, -3])
def test_impossible_settings_are_refused_at_compile(spectra):
    model = ks.SpectralModel(*tensors())
    with pytest.raises(ks.errors.SettingsError):
        model.compile("sgd", "mse", spectra=spectra)


def test_steps_count_on_over_fits_and_compiles():
    model = ks.SpectralModel(*tensors())
    trained(model, data()[2], epochs=1)
    trained(model, data()[2], epochs=1)
    assert model.spectral_log.steps == list(range(8))
    model.spectral_logger.reset_state()
    assert len(model.spectral_log) == 0
    model.fit(*data()[:2], verbose=0)
    assert model.spectral_log.steps[0] == 8


@pytest.mark.parametrize(
    ("spectra", "steps"),
    [
        (5, [0, 5, 10]),
        (ks.schedules.epochs(2), [0, 8]),
        (ks.schedules.at([1, 11]), [1, 11]),
        (ks.schedules.logarithmic(1), [0, 1, 10]),
        (lambda step, epoch, batch: (epoch == 1) & (batch < 2), [4, 5]),
    ],
)
@pytest.mark.parametrize("steps_per_execution", [1, 3])
def test_schedules_choose_the_recorded_steps(spectra, steps, steps_per_execution):
    model = ks.SpectralModel(*tensors())
    trained(model, spectra=spectra, steps_per_execution=steps_per_execution)
    assert model.spectral_log.steps == steps


def test_more_steps_than_the_buffer_holds_lose_nothing():
    model = ks.SpectralModel(*tensors())
    trained(model, data()[2], epochs=4, steps_per_execution=50, fit={"batch_size": 1})
    assert model.spectral_log.steps == list(range(200))


def test_top_k_keeps_the_largest_and_says_so():
    whole, cut = (built(lambda: ks.SpectralModel(*tensors())) for _ in range(2))
    trained(whole, data()[2], epochs=1)
    trained(cut, data()[2], epochs=1, spectra=ks.Spectra(top_k=2))
    rows = cut.spectral_log.rows
    np.testing.assert_array_equal(cut.spectral_log.sigma, whole.spectral_log.sigma[:, :2])
    assert (rows["truncated"] == (rows["rank_bound"] > 2)).all()
    np.testing.assert_array_equal(rows["frobenius_norm"], whole.spectral_log.rows["frobenius_norm"])


def test_named_summaries_appear_in_history_and_nothing_else_does():
    model = ks.SpectralModel(*tensors())
    _, history = trained(model, data()[2], spectra=ks.Spectra(show=["effective_rank"]))
    groups = {"effective_rank_all", "effective_rank_HC", "effective_rank_SZ"}
    assert set(history) == {"loss", "accuracy"} | groups
    table = model.spectral_log.select(quantity="gradient", epoch=2, group="SZ").summary()
    assert history["effective_rank_SZ"][-1] == pytest.approx(table["effective_rank"].mean())


def test_frozen_layers_are_not_recorded():
    model = ks.SpectralModel(*tensors())
    model.get_layer("hidden").trainable = False
    trained(model, data()[2])
    assert model.spectral_log.layers == ["output"]
    reasons = ks.coverage(model).set_index(["layer", "weight"])["reason"]
    assert "frozen" in reasons["hidden", "kernel"]


@pytest.mark.filterwarnings("ignore:Gradients do not exist")  # Keras says so too
def test_a_layer_that_no_gradient_reaches_is_named_once_and_skipped():
    inputs = keras.Input((6,))
    aside = keras.layers.Dense(2, name="aside")
    x = keras.layers.Dense(4, name="d")(inputs)
    x = x + 0 * keras.ops.stop_gradient(aside(x)[:, :1])
    model = ks.SpectralModel(inputs, keras.layers.Dense(3, activation="softmax", name="o")(x))
    model.compile("sgd", "sparse_categorical_crossentropy", spectra=1)
    with pytest.warns(UserWarning, match="'aside' are not recorded: no gradient") as caught:
        model.fit(*data()[:2], verbose=0)
    assert len([w for w in caught if "recorded" in str(w.message)]) == 1
    assert model.spectral_log.layers == ["d", "o"]


def test_strict_refuses_a_model_with_a_layer_that_cannot_be_captured(monkeypatch):
    monkeypatch.setattr(
        "keras_spectral.capture.generic.GenericRule.obstacle", lambda self, layer: "out of order"
    )
    inputs = keras.Input((6,))
    x = keras.layers.BatchNormalization(name="norm")(inputs)
    model = ks.SpectralModel(inputs, keras.layers.Dense(3, activation="softmax", name="o")(x))
    model.compile("sgd", "mse", spectra=ks.Spectra(strict=True))
    with pytest.raises(ks.errors.UnsupportedLayerError, match="norm: out of order"):
        model.fit(*data()[:2], verbose=0)


def test_layers_are_chosen_by_name_pattern_or_predicate():
    for layers in ("output", ["out*"], lambda layer: layer.units == 3):
        model = ks.SpectralModel(*tensors())
        trained(model, spectra=ks.Spectra(layers=layers), epochs=1)
        assert model.spectral_log.layers == ["output"]
    model = ks.SpectralModel(*tensors())
    with pytest.raises(ks.errors.SettingsError, match="typo"):
        trained(model, spectra=ks.Spectra(layers=["output", "typo"]))


def test_nan_loss_is_recorded_named_once_and_training_goes_on():
    x, y, groups = data()
    x[20] = np.nan
    model = ks.SpectralModel(*tensors())
    model.compile("sgd", "sparse_categorical_crossentropy", spectra=1)
    with pytest.warns(UserWarning, match="holds NaN or Inf at step 1") as caught:
        model.fit(x, y, groups=groups, batch_size=16, shuffle=False, verbose=0, epochs=2)
    log = model.spectral_log
    assert len(caught) == 1
    assert log.steps == list(range(8))
    assert np.isnan(log.singular_values("hidden", "activation", step=1)).all()
    assert np.isfinite(log.singular_values("hidden", "activation", step=0)).all()
    assert model.spectral_logger.nonfinite == log.rows["frobenius_norm"].isna().sum()


def test_class_weight_changes_adjoints_as_sample_weight_does():
    x, y, groups = data()
    logs = []
    weights = {0: 1.0, 1: 2.0, 2: 0.5}
    for extra in (
        {"class_weight": weights},
        {"sample_weight": np.array([weights[c] for c in y], "f")},
    ):
        model = built(lambda: ks.SpectralModel(*tensors()))
        model.compile("sgd", "sparse_categorical_crossentropy", spectra=1)
        model.fit(x, y, groups=groups, shuffle=False, verbose=0, **extra)
        logs.append(model.spectral_log)
    np.testing.assert_array_equal(logs[0].sigma, logs[1].sigma)


def test_evaluate_gives_the_usual_metrics_and_keeps_its_spectra():
    x, y, groups = data()
    model = ks.SpectralModel(*tensors())
    trained(model, groups, epochs=1)
    recorded = len(model.spectral_log)
    plain = model.evaluate(x, y, verbose=0, return_dict=True)
    assert model.evaluation_log is None
    assert model.evaluate(x, y, groups=groups, verbose=0, return_dict=True) == plain
    assert model.evaluation_log.groups == ["all", "HC", "SZ"]
    assert len(model.spectral_log) == recorded
    dataset = ks.with_groups(tf.data.Dataset.from_tensor_slices((x, y)).batch(10), groups)
    assert model.evaluate(dataset, verbose=0, return_dict=True).keys() == plain.keys()
    assert len(model.evaluation_log.steps) == 5


def test_a_custom_loss_on_the_model_is_the_one_that_is_watched():
    class Doubled(ks.SpectralModel):
        def compute_loss(self, *args, **kwargs):
            return 2 * super().compute_loss(*args, **kwargs)

    one, two = built(lambda: ks.SpectralModel(*tensors())), built(lambda: Doubled(*tensors()))
    for model in (one, two):
        trained(model, data()[2], epochs=1, spectra=ks.schedules.at([0]))
    one, two = one.spectral_log, two.spectral_log
    is_activation = (one.rows["quantity"] == "activation").to_numpy()
    np.testing.assert_array_equal(two.sigma[is_activation], one.sigma[is_activation])
    np.testing.assert_allclose(two.sigma[~is_activation], 2 * one.sigma[~is_activation], rtol=1e-6)


def test_loss_scaling_is_divided_out():
    logs = []
    for factor in (None, 1024.0):
        model = built(lambda: ks.SpectralModel(*tensors()))
        optimizer = keras.optimizers.SGD(0.01, loss_scale_factor=factor)
        trained(model, data()[2], epochs=1, optimizer=optimizer)
        logs.append(model.spectral_log)
    np.testing.assert_allclose(logs[0].sigma, logs[1].sigma, rtol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_records_unscaled_adjoints(policy):
    x, y, groups = data()
    logs = []
    for dtype in ("float32", policy):
        keras.utils.set_random_seed(1)
        inputs = keras.Input((6,))
        h = keras.layers.Dense(8, activation="relu", name="hidden", dtype=dtype)(inputs)
        o = keras.layers.Dense(3, name="output", dtype=dtype)(h)
        model = ks.SpectralModel(inputs, keras.layers.Activation("softmax", dtype="float32")(o))
        optimizer = keras.optimizers.SGD(0.0)
        if dtype == "mixed_float16":
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
        model.compile(optimizer, "sparse_categorical_crossentropy", spectra=1)
        model.fit(x, y, groups=groups, shuffle=False, verbose=0)
        logs.append(model.spectral_log)
    # bfloat16 keeps 8 bits, float16 eleven; norms average the rounding of entries.
    rtol = 0.02 if policy == "mixed_bfloat16" else 0.003
    np.testing.assert_allclose(
        logs[1].rows["frobenius_norm"], logs[0].rows["frobenius_norm"], rtol=rtol
    )


def test_groups_beside_a_dataset_and_generators_with_groups_are_refused():
    x, y, groups = data()
    model = ks.SpectralModel(*tensors())
    model.compile("sgd", "sparse_categorical_crossentropy", spectra=1)
    with pytest.raises(ks.errors.GroupsError, match=r"inside a tf\.data\.Dataset"):
        model.fit(tf.data.Dataset.from_tensor_slices((x, y)).batch(8), groups=groups)
    with pytest.raises(ks.errors.GroupsError, match="must come with arrays"):
        model.fit(((x, y) for _ in range(2)), groups=groups)
    with pytest.raises(ks.errors.GroupsError, match=r"one label per example\. Received: 49 labels"):
        model.fit(x, y, groups=groups[:49])


def test_distributed_training_is_refused_before_it_begins():
    from keras_spectral.recorder import require_one_replica

    class TwoReplicas:
        num_replicas_in_sync = 2

    with pytest.raises(ks.errors.RecordingError, match="2 replicas"):
        require_one_replica(TwoReplicas())


def counted_traces(every, **options):
    """Return a model that counts its traces, with the list that does."""
    traces = []

    class Counting(keras.layers.Layer):
        def call(self, x):
            traces.append(1)
            return x

    inputs = keras.Input((6,))
    x = Counting()(keras.layers.Dense(4, name="d")(inputs))
    model = ks.SpectralModel(inputs, keras.layers.Dense(3, activation="softmax", name="o")(x))
    model.compile("sgd", "sparse_categorical_crossentropy", spectra=every, **options)
    del traces[:]  # of the symbolic call above
    return model, traces


def test_nothing_is_traced_again_after_the_first_epoch():
    x, y, groups = data()
    model, traces = counted_traces(1)
    model.fit(x, y, groups=groups, batch_size=16, verbose=0, epochs=1)
    first = len(traces)
    model.fit(x, y, groups=groups[::-1], batch_size=16, verbose=0, epochs=3)
    assert len(traces) == first


def test_warnings_of_the_package_are_none_in_a_plain_case():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trained(ks.SpectralModel(*tensors()), data()[2])


def test_where_no_step_is_due_only_the_function_of_a_plain_model_is_built():
    x, y, groups = data()
    model, traces = counted_traces(ks.schedules.at([10**6]))
    seen = []
    train_step = keras.Model.train_step

    class Plain(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(set(logs))

    model.fit(x, y, groups=groups, batch_size=10, verbose=0, callbacks=[Plain()])
    assert len(traces) == 1
    assert seen == [{"loss"}] * 5
    assert len(model.spectral_log) == 0
    assert keras.Model.train_step is train_step


def test_the_function_that_records_is_built_when_the_first_step_is_due():
    x, y, groups = data()
    model, traces = counted_traces(ks.schedules.at([3]))
    counts = []
    count = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: counts.append(len(traces))
    )
    model.fit(x, y, groups=groups, batch_size=10, verbose=0, callbacks=[count])
    assert counts[0] == counts[2] == 1
    assert counts[3] == counts[4] > 1
    assert model.spectral_log.steps == [3]


@pytest.mark.parametrize("steps_per_execution", [1, 3, 4, 7])
@pytest.mark.parametrize("due", [[0, 7, 9, 10], [2, 3, 19], [8]])
def test_due_steps_are_recorded_alone_whatever_runs_together(steps_per_execution, due):
    def fitted(cls, **watched):
        keras.utils.set_random_seed(0)
        model = cls(*tensors())
        loss = "sparse_categorical_crossentropy"
        run = {"steps_per_execution": steps_per_execution}
        model.compile("adam", loss, **run, **{k: watched[k] for k in watched if k == "spectra"})
        x, y, groups = data()
        extra = {"groups": groups} if watched else {}
        model.fit(x, y, batch_size=10, epochs=4, shuffle=False, verbose=0, **extra)
        return model

    watched, plain = fitted(ks.SpectralModel, spectra=ks.schedules.at(due)), fitted(keras.Model)
    assert watched.spectral_log.steps == due
    assert watched.spectral_logger.step == 20
    for mine, own in zip(watched.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, own)


def test_a_schedule_receives_python_integers():
    seen = []

    def own(step, epoch, batch):
        seen.append((step, epoch, batch))
        return step == 3 or (epoch == 1 and batch == 0)

    x, y, _ = data(20)
    model = ks.SpectralModel(*tensors())
    model.compile("sgd", "sparse_categorical_crossentropy", spectra=own)
    model.fit(x, y, batch_size=10, epochs=3, verbose=0)
    assert {type(number) for when in seen for number in when} == {int}
    assert dict.fromkeys(seen) == dict.fromkeys(
        [(0, 0, 0), (1, 0, 1), (2, 1, 0), (3, 1, 1), (4, 2, 0), (5, 2, 1)]
    )
    assert model.spectral_log.steps == [2, 3]


class OwnStep(ks.SpectralModel):
    """A model whose `train_step` takes the batch apart, as users write it."""

    def train_step(self, data):
        x, y = data
        return super().train_step((2.0 * x, y))


def test_a_train_step_of_ones_own_receives_a_plain_batch():
    x, y, groups = data()
    keras.utils.set_random_seed(0)
    model = OwnStep(*tensors())
    model.compile("sgd", "sparse_categorical_crossentropy", spectra=2)
    model.fit(x, y, groups=groups, batch_size=25, epochs=2, shuffle=False, verbose=0)
    log = model.spectral_log
    assert log.groups == ["all", "HC", "SZ"]
    assert log.steps == [0, 2]
    norm = log.summary("frobenius_norm").query("layer == 'hidden' and quantity == 'activation'")
    found = norm.query("group == 'all' and step == 0")["frobenius_norm"].item()
    np.testing.assert_allclose(found, 2 * np.linalg.norm(x[:25]), rtol=1e-6)


class Bypass(ks.SpectralModel):
    def train_step(self, data):
        return keras.Model.train_step(self, data)


def test_a_train_step_that_goes_around_ours_is_said_once_and_refused_if_strict():
    x, y, groups = data()
    model = Bypass(*tensors())
    model.compile("sgd", "sparse_categorical_crossentropy", spectra=1)
    with pytest.warns(UserWarning, match=r"must call `super\(\).train_step") as said:
        model.fit(x, y, groups=groups, batch_size=25, epochs=2, verbose=0)
    assert len([w for w in said if "train_step" in str(w.message)]) == 1
    assert len(model.spectral_log) == 0
    model.compile("sgd", "sparse_categorical_crossentropy", spectra=ks.Spectra(strict=True))
    with pytest.raises(ks.errors.UnsupportedLayerError, match="must call"):
        model.fit(x, y, groups=groups, batch_size=25, verbose=0)


class MeanOverExamples(keras.layers.Layer):
    """A layer whose output does not lead with the example: nothing around it does either."""

    def __init__(self):
        super().__init__(name="flat")
        self.dense = keras.layers.Dense(3, name="inner")

    def call(self, x):
        return keras.ops.mean(self.dense(keras.ops.reshape(x, (-1, 3))), axis=0)


def test_strict_refuses_before_the_first_step_also_if_it_is_not_due():
    x, _, groups = data()
    inputs = keras.Input((6,))
    model = ks.SpectralModel(inputs, MeanOverExamples()(inputs))
    spectra = ks.Spectra(every=ks.schedules.at([2]), strict=True)
    model.compile("sgd", lambda y, z: keras.ops.sum(z**2), spectra=spectra)
    before, steps = model.get_weights(), []
    count = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: steps.append(1))
    with pytest.raises(ks.errors.UnsupportedLayerError, match="Try `strict=False`"):
        model.fit(x, x, groups=groups, batch_size=10, verbose=0, callbacks=[count])
    assert not steps
    for mine, own in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, own)


STRATEGIES = {
    "mirrored": lambda: tf.distribute.MirroredStrategy(["CPU:0"]),
    "one device": lambda: tf.distribute.OneDeviceStrategy("CPU:0"),
}


@pytest.mark.parametrize("steps_per_execution", [1, 3])
@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_of_one_replica_trains_and_records_like_none(name, steps_per_execution):
    x, y, groups = data()

    def fitted(scope):
        with scope:
            keras.utils.set_random_seed(0)
            model = ks.SpectralModel(*tensors())
            run = {"steps_per_execution": steps_per_execution}
            model.compile("sgd", "sparse_categorical_crossentropy", spectra=2, **run)
        model.fit(x, y, groups=groups, batch_size=16, epochs=2, shuffle=False, verbose=0)
        return model

    alone, within = fitted(contextlib.nullcontext()), fitted(STRATEGIES[name]().scope())
    assert within.spectral_log.rows.equals(alone.spectral_log.rows)
    np.testing.assert_array_equal(within.spectral_log.sigma, alone.spectral_log.sigma)


def test_predict_takes_what_fit_and_evaluate_take():
    x, y, groups = data()
    model = ks.SpectralModel(*tensors())
    model.compile("sgd", "sparse_categorical_crossentropy", spectra=1)
    dataset = tf.data.Dataset.from_tensor_slices((x, y))
    grouped = ks.with_groups(dataset, groups).batch(16)
    np.testing.assert_array_equal(
        model.predict(grouped, verbose=0), model.predict(dataset.batch(16), verbose=0)
    )


def test_single_batches_without_groups_after_a_fit_with_groups_are_recorded_for_all():
    x, y, groups = data()
    model = ks.SpectralModel(*tensors())
    trained(model, groups=groups, epochs=1)
    last = model.spectral_log.steps[-1]
    model.train_on_batch(x[:8], y[:8])
    rows = model.spectral_log.rows
    rows = rows[rows["step"] > last]
    assert set(rows["group"]) == {"all"}
    assert set(rows["n_examples"]) == {8}


def test_a_warning_made_an_error_costs_no_record():
    x, y, _ = data(8)
    model = ks.SpectralModel(*tensors())
    model.compile("sgd", "sparse_categorical_crossentropy", spectra=1)
    model.train_on_batch(np.full_like(x, np.nan), y)
    with pytest.raises(UserWarning, match="holds NaN or Inf"):
        _ = model.spectral_log  # pytest makes warnings errors
    assert model.spectral_log.steps == [0]


def test_a_while_without_spectra_forgets_nothing():
    x, y, groups = data()
    model = ks.SpectralModel(*tensors())
    for spectra in (1, None, 1):
        model.compile("sgd", "sparse_categorical_crossentropy", spectra=spectra)
        extra = {} if spectra is None else {"groups": groups}
        model.fit(x, y, batch_size=len(x), epochs=2, verbose=0, **extra)
    assert len(model.spectral_log.steps) == 4


def test_what_groups_were_of_former_rows_stays_known():
    x, y, _ = data()
    model = ks.SpectralModel(*tensors())
    model.compile("sgd", "sparse_categorical_crossentropy", spectra=1)
    model.fit(x, y, groups=ks.permutations(y, n=3), verbose=0)
    known = {name: model.spectral_log.provenance[name] for name in ("groups", "permutations")}
    model.fit(x, y, verbose=0)
    after = model.spectral_log.provenance
    assert after["groups_are_target"] == ["0", "1", "2"]
    assert {name: after[name] for name in known} == known


def test_a_batch_without_examples_leaves_no_row():
    x, y, _ = data()
    parts = [slice(0, 16), slice(0, 0), slice(16, 32)]

    def batches():
        yield from ((x[part], y[part]) for part in parts)

    def fitted(cls, given, **spectra):
        keras.utils.set_random_seed(0)
        model = cls(*tensors())
        model.compile("sgd", "sparse_categorical_crossentropy", **spectra)
        model.fit(given, epochs=2, shuffle=False, verbose=0)
        return model

    signature = (tf.TensorSpec([None, 6]), tf.TensorSpec([None], tf.int64))
    dataset = tf.data.Dataset.from_generator(batches, output_signature=signature)
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(len(parts)))
    watched, plain = fitted(ks.SpectralModel, dataset, spectra=1), fitted(keras.Model, dataset)
    assert watched.spectral_log.steps == [0, 2, 3, 5]
    for mine, own in zip(watched.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, own)
