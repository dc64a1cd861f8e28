"""Models of time series and volumes: their layers, what padding does to them, that they learn."""

import keras
import numpy as np
import pytest

import keras_spectral as ks
from keras_spectral.errors import DataError
from keras_spectral.neuro.models import bilstm, cnn1d, cnn3d, transformer

SERIES = (bilstm, transformer, cnn1d)


def made(make):
    return make((8, 8, 8), 2, filters=(3, 4)) if make is cnn3d else make(40, 5, 2)


def examples(make, n=32):
    """Random examples; class 1 is three times as strong."""
    rng = np.random.default_rng(0)
    y = np.arange(n) % 2
    x = rng.normal(size=(n, *made(make).input_shape[1:])).astype("f")
    return x * (1 + 2 * y).reshape(-1, *[1] * (x.ndim - 1)), y


@pytest.mark.parametrize("make", [*SERIES, cnn3d])
def test_names_are_the_same_in_every_fold_and_all_kernels_are_captured(make):
    first, second = (ks.coverage(made(make)) for _ in range(2))
    assert first["layer"].tolist() == second["layer"].tolist()
    missed = first[first["trainable"] & ~first["captured"]]
    assert missed["weight"].unique().tolist() == ["bias"]


@pytest.mark.parametrize("make", [*SERIES, cnn3d])
def test_it_learns_and_is_recorded_and_loads_again(make, tmp_path):
    keras.utils.set_random_seed(0)
    model = ks.SpectralModel.from_model(made(make))
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", spectra=10)
    x, y = examples(make)
    losses = model.fit(x, y, epochs=25, batch_size=16, verbose=0).history["loss"]
    assert losses[-1] < 0.5 * losses[0]
    weights = ks.coverage(model).query("captured")[["layer", "weight"]]
    assert set(model.spectral_log.rows["layer"]) == set(weights["layer"])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(x), model(x))


@pytest.mark.parametrize("make", [bilstm, transformer])
def test_windows_of_padding_change_nothing(make):
    keras.utils.set_random_seed(0)
    long, short = make(40, 5, 2, window=5), make(20, 5, 2, window=5)
    x = examples(make)[0][:3]
    x[:, 20:] = 0
    weights = long.get_weights()
    if make is transformer:  # a position for each window: the first four
        (places,) = [k for k, w in enumerate(weights) if w.shape == (8, 64)]
        weights[places] = weights[places][:4]
    short.set_weights(weights)
    until_mean = [keras.Model(m.input, m.get_layer("mean").output) for m in (long, short)]
    np.testing.assert_allclose(until_mean[0](x), until_mean[1](x[:, :20]), atol=1e-5)
    x[:, 39] = 1  # one time point makes its window count
    assert np.abs(until_mean[0](x) - until_mean[1](x[:, :20])).max() > 1e-2


def test_what_the_data_cannot_hold_is_an_error():
    for make in (bilstm, transformer):
        with pytest.raises(DataError, match="`window` must be at most"):
            make(5, 3, 2, window=6)
    with pytest.raises(DataError, match="`n_time` must be at least 16"):
        cnn1d(15, 3, 2)
    with pytest.raises(DataError, match="at least 32 for 5 blocks"):
        cnn3d((35, 51, 31), 2)
    for make in SERIES:
        with pytest.raises(DataError, match="`n_classes` must be at least 2"):
            make(40, 5, 1)


def test_sizes_are_those_asked_for():
    model = bilstm(100, 30, 2, window=10, encoder=256, units=384)
    assert model.get_layer("encoder").kernel.shape == (300, 256)
    assert model.get_layer("bilstm").output.shape == (None, 10, 768)
    model = transformer(100, 30, 2, window=1, width=128, feed_forward=512, blocks=3)
    assert model.get_layer("hidden_3").kernel.shape == (128, 512)
    assert cnn3d((121, 145, 121), 2).get_layer("conv_5").filters == 32
