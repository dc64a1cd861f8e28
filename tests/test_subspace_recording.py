"""Training that is watched through subspaces: near what is exact, certified, inert, on file."""

import keras
import numpy as np
import pandas as pd
import pytest

import keras_spectral as ks
from keras_spectral.errors import SettingsError

N, TOKENS, WIDTH = 48, 40, 160
SUBSPACE = ks.Spectra(top_k=4, method="subspace")


def data():
    rng = np.random.default_rng(0)
    scale = (1.0 + np.arange(WIDTH)) ** -0.7
    x = (rng.standard_normal((N, TOKENS, WIDTH)) * scale).astype("float32")
    return x, rng.integers(0, 2, N), rng.choice(["a", "b"], N)


def network():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((TOKENS, WIDTH))
    x = keras.layers.Dense(WIDTH, activation="relu", name="wide")(inputs)
    x = keras.layers.Conv1D(WIDTH, 3, activation="relu", name="conv")(x)
    x = keras.layers.GlobalAveragePooling1D()(x)
    return inputs, keras.layers.Dense(2, activation="softmax", name="out")(x)


def trained(model, spectra=None, groups=None, **options):
    x, y, _ = data()
    own = {} if spectra is None else {"spectra": spectra}
    model.compile("adam", "sparse_categorical_crossentropy", **own, **options)
    extra = {} if spectra is None else {"groups": groups}
    model.fit(x, y, batch_size=16, epochs=3, shuffle=False, verbose=0, **extra)
    return model


@pytest.fixture(scope="module")
def logs():
    groups = data()[2]
    exact = ks.Spectra(top_k=4, method="gram")
    return [
        trained(ks.SpectralModel(*network()), spectra, groups).spectral_log
        for spectra in (SUBSPACE, exact)
    ]


def test_values_are_near_the_exact_ones_and_the_bounds_hold(logs):
    found, exact = logs
    keys = ["step", "layer", "quantity", "group", "n_rows", "truncated"]
    pd.testing.assert_frame_equal(found.rows[keys], exact.rows[keys])
    in_part = found.rows["residual_norm"] > 0
    assert set(found.rows["layer"][in_part]) == {"wide", "conv"}
    assert (found.rows["layer"][~in_part] == "out").any()
    first = exact.sigma[:, :1]
    error = np.abs(found.sigma - exact.sigma)
    assert (error <= found.sigma_error + 1e-6 * first)[np.isfinite(error)].all()
    last = (found.rows["step"] == found.steps[-1]).to_numpy()
    assert np.nanmax((error / first)[last]) < 0.01
    np.testing.assert_allclose(
        found.rows["frobenius_norm"], exact.rows["frobenius_norm"], rtol=1e-6
    )
    assert not exact.sigma_error[np.isfinite(exact.sigma)].any()
    assert "residual_norm" not in exact.rows


def test_what_is_missed_is_on_file(logs, tmp_path):
    found, exact = logs
    found.to_csv(tmp_path / "spectra.csv")
    read = ks.read_log(tmp_path / "spectra.csv")
    np.testing.assert_array_equal(read.sigma_error, found.sigma_error)
    both = ks.SpectralLog.concat({"subspace": read, "exact": exact})
    errors = both.select(run="exact").sigma_error
    assert not errors[np.isfinite(errors)].any()
    again = both.select(run="subspace")
    np.testing.assert_array_equal(again.sigma_error, found.sigma_error)


@pytest.mark.parametrize("append_first", ["exact", "subspace"])
def test_files_take_both_kinds_of_rows(logs, tmp_path, append_first):
    path = tmp_path / "spectra.csv"
    kinds = {"subspace": SUBSPACE, "exact": ks.Spectra(top_k=4, method="gram")}
    order = sorted(kinds, reverse=append_first == "subspace")
    x, y, groups = data()
    for run in order:
        model = ks.SpectralModel(*network())
        model.compile("adam", "sparse_categorical_crossentropy", spectra=kinds[run])
        writer = ks.callbacks.SpectralCSVLogger(path, append=True, run=run)
        model.fit(x, y, groups=groups, batch_size=16, verbose=0, callbacks=[writer])
    read = ks.read_log(path)
    assert list(read.rows.columns[:3]) == ["run", "epoch", "step"]
    assert not np.nan_to_num(read.select(run="exact").sigma_error).any()
    assert np.nanmax(read.select(run="subspace").sigma_error) > 0


@pytest.mark.parametrize(
    "options",
    [{}, {"run_eagerly": True}, {"steps_per_execution": 3}, {"jit_compile": True}],
    ids=["default", "run_eagerly", "steps_per_execution", "jit_compile"],
)
def test_weights_are_those_of_a_plain_model(options, logs):
    watched = trained(ks.SpectralModel(*network()), SUBSPACE, data()[2], **options)
    plain = trained(keras.Model(*network()), **options)
    for own, expected in zip(watched.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_array_equal(own, expected)
    assert len(watched.get_weights()) == len(plain.get_weights())
    np.testing.assert_allclose(
        watched.spectral_log.sigma[:, 0], logs[0].sigma[:, 0], rtol=1e-3, atol=1e-6
    )


class Mixing(keras.layers.Layer):
    """No product, and its large weight is not its first."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones", name="scale")
        self.mix = self.add_weight(shape=(shape[-1], shape[-1]), name="mix")

    def call(self, x):
        return keras.ops.tanh(keras.ops.matmul(x, self.mix * self.scale))


def test_weights_that_are_no_product():
    def made():
        keras.utils.set_random_seed(0)
        inputs = keras.Input((TOKENS, WIDTH))
        x = keras.layers.GlobalAveragePooling1D()(Mixing(name="mixing")(inputs))
        return inputs, keras.layers.Dense(2, activation="softmax")(x)

    exact = ks.Spectra(top_k=4, method="gram")
    found, exact = (
        trained(ks.SpectralModel(*made()), spectra, data()[2]).spectral_log.select(layer="mixing")
        for spectra in (SUBSPACE, exact)
    )
    assert (found.select(weight="mix", quantity="gradient").rows["residual_norm"] > 0).any()
    beyond = np.abs(found.sigma - exact.sigma) - found.sigma_error
    assert np.nanmax(beyond / exact.sigma[:, :1]) < 1e-6


def test_numbers_too_large_for_float32_do_not_stop_training():
    x, y, groups = data()
    model = ks.SpectralModel(*network())
    model.compile("sgd", "sparse_categorical_crossentropy", spectra=SUBSPACE)
    huge = np.where(np.arange(N)[:, None, None] == 5, np.float32(3e37), x)
    with pytest.warns(UserWarning, match="NaN or Inf"):
        model.fit(huge, y, batch_size=16, groups=groups, shuffle=False, verbose=0)
    assert model.spectral_log.steps == [0, 1, 2]


def test_permutations_go_with_it():
    groups = ks.permutations(data()[2], n=5)
    log = trained(ks.SpectralModel(*network()), SUBSPACE, groups).spectral_log
    assert set(log.permutations["permutation"]) == {1, 2, 3, 4, 5}
    assert "residual_norm" not in log.permutations
    found = ks.analysis.compare_groups(log, "a", "b")
    assert found["p"].notna().any()


def test_it_needs_a_number_of_values():
    with pytest.raises(SettingsError, match="must be used with `top_k`"):
        ks.Spectra(method="subspace")
