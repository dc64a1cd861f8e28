"""What is recorded is what trained, or it is not recorded and the reason is told."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_spectral as ks
from keras_spectral.capture.dense import DenseRule
from keras_spectral.errors import UnsupportedLayerError

L = keras.layers
ops = keras.ops

N = 16
GROUPS = np.array(["a", "b"] * (N // 2))
ROUNDING = 1e-5


def data():
    rng = np.random.default_rng(0)
    return rng.standard_normal((N, 4)).astype("f"), rng.standard_normal((N, 1)).astype("f")


def fitted(model, epochs=1, strict=False, **options):
    x, y = data()
    spectra = ks.Spectra(strict=strict)
    model.compile(options.pop("optimizer", "sgd"), "mse", spectra=spectra, **options)
    model.fit(x, y, groups=GROUPS, batch_size=N, epochs=epochs, verbose=0, shuffle=False)
    return model.spectral_log


def network(**dense):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((4,))
    hidden = L.Dense(5, activation="tanh", name="hidden", **dense)(inputs)
    return ks.SpectralModel(inputs, L.Dense(1, name="out", dtype="float32")(hidden))


class Critic(ks.SpectralModel):
    """Its loss differentiates the model again, as a gradient penalty does."""

    def __init__(self):
        super().__init__()
        self.hidden = L.Dense(5, activation="tanh", name="hidden")
        self.out = L.Dense(1, name="out")

    def call(self, x):
        return self.out(self.hidden(x))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        x = tf.convert_to_tensor(x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            z = self(x)
        slopes = tf.norm(tape.gradient(z, x), axis=1)
        return ops.mean(ops.square(y - y_pred)) + tf.reduce_mean((slopes - 1.0) ** 2)


@pytest.mark.filterwarnings("ignore:The spectra of layer:UserWarning")
def test_a_second_backward_pass_is_told_and_nothing_wrong_is_recorded():
    model = Critic()
    with pytest.warns(UserWarning, match=r"layer 'hidden'.*second backward pass"):
        log = fitted(model, epochs=3)
    assert "hidden" not in log.layers
    assert log.provenance["not_what_trains"] == ["hidden"]


@pytest.mark.filterwarnings("ignore:The spectra of layer:UserWarning")
def test_strict_refuses_a_second_backward_pass():
    with pytest.raises(UnsupportedLayerError, match="must be what trains"):
        fitted(Critic(), strict=True)


@pytest.mark.parametrize("regularizer", ["l2", keras.regularizers.L1L2(0.1, 0.2)])
def test_a_weight_regulariser_belongs_to_no_example_and_is_no_reason(regularizer):
    log = fitted(network(kernel_regularizer=regularizer), strict=True)
    assert log.layers == ["hidden", "out"]


def test_an_activity_regulariser_passes_through_the_output():
    assert fitted(network(activity_regularizer="l2"), strict=True).layers == ["hidden", "out"]


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16", "float64"])
def test_other_precisions_are_recorded(dtype):
    log = fitted(network(dtype=dtype), strict=True, epochs=2)
    assert log.layers == ["hidden", "out"]


def test_the_loss_of_a_weight_alone_is_told():
    class Penalised(L.Layer):
        def build(self, shape):
            self.w = self.add_weight(shape=(shape[-1], 3), name="w")

        def call(self, x):
            self.add_loss(10.0 * ops.sum(self.w**2))
            return ops.matmul(x, self.w)

    inputs = keras.Input((4,))
    out = L.Dense(1, name="out")(Penalised(name="penalised")(inputs))
    with pytest.warns(UserWarning, match=r"differ from those of the loss by \d+% .*'penalised'"):
        log = fitted(ks.SpectralModel(inputs, out), epochs=2)
    assert log.layers == ["out"]


def test_a_wrong_rule_records_nothing(monkeypatch):
    normal_form = DenseRule.normal_form

    def wrong(self, layer, inputs, delta):
        pairs = normal_form(self, layer, inputs, delta)
        return {name: (a, 1.5 * d) for name, (a, d) in pairs.items()}

    monkeypatch.setattr(DenseRule, "normal_form", wrong)
    with pytest.warns(UserWarning, match="must be what trains"):
        assert len(fitted(network())) == 0


def test_infinite_gradients_of_a_scaled_loss_wait_for_the_next_step(monkeypatch):
    asked = []
    import keras_spectral.capture.verification as verification

    mismatches = verification.mismatches

    def listening(*args):
        asked.append(mismatches(*args))
        return asked[-1]

    monkeypatch.setattr(verification, "mismatches", listening)
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.0), initial_scale=2.0**126)
    model = network(dtype="mixed_float16")
    with pytest.warns(UserWarning, match="NaN or Inf"):
        fitted(model, epochs=4, optimizer=scaled)
    assert asked[0] is None


def test_every_fit_is_held_against_its_optimizer_once(monkeypatch):
    import keras_spectral.capture.verification as verification

    times = []
    mismatches = verification.mismatches
    monkeypatch.setattr(
        verification, "mismatches", lambda *args: times.append(1) or mismatches(*args)
    )
    model = network()
    fitted(model, epochs=3)
    assert len(times) == 1
    model.fit(*data(), batch_size=4, verbose=0)
    assert len(times) == 2


def test_an_embedding_is_recorded_though_its_gradient_is_sparse():
    inputs = keras.Input((6,), dtype="int32")
    hidden = L.Flatten()(L.Embedding(50, 3, name="embedding")(inputs))
    model = ks.SpectralModel(inputs, L.Dense(1, name="out")(hidden))
    model.compile("sgd", "mse", spectra=ks.Spectra(strict=True))
    tokens = np.random.default_rng(0).integers(0, 40, (N, 6))
    model.fit(tokens, data()[1], groups=GROUPS, batch_size=N, verbose=0)
    assert model.spectral_log.layers == ["embedding", "out"]


@pytest.mark.filterwarnings("ignore:The spectra of layer:UserWarning")
def test_introspection_records_what_the_loss_has_or_tells():
    model = Critic()
    x, y = data()
    model(x)
    model.compile("sgd", "mse")
    with pytest.warns(UserWarning, match="must be what trains"):
        log = ks.introspect(model, x, y, groups=GROUPS, spectra=1)
    assert "hidden" not in log.layers
    assert ks.introspect(network_of("sgd"), x, y, spectra=1).layers == ["hidden", "out"]


def network_of(optimizer):
    model = network(kernel_regularizer="l2")
    model.compile(optimizer, "mse")
    return model
