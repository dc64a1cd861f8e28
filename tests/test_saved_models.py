"""The saved models load, and show the spectra that were saved beside them."""

import hashlib
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_spectral as ks
from scripts.save_models import (
    FILES,
    FOLDER,
    look_settings,
    scores_row,
    settings_of,
    subjects_of,
)

NAMES = sorted(path.name for path in FOLDER.iterdir())
KEYS = ["layer", "weight", "quantity", "group", "n_examples", "n_rows", "rank_bound"]
ROUNDING = 1e-5  # of the largest singular value: float32 weights, summed otherwise elsewhere
MOST_BYTES_OF_A_MODEL = 1_000_000
MOST_BYTES = 2_000_000

every_model = pytest.mark.parametrize("name", NAMES)
SLOW = {"volumes_cnn3d": pytest.mark.slow}


def test_there_are_models():
    assert NAMES == ["fnc_mlp", "time_series_lstm", "volumes_cnn3d"]


@pytest.mark.parametrize("name", [pytest.param(n, marks=SLOW.get(n, ())) for n in NAMES])
def test_a_model_shows_its_spectra_again_on_data_simulated_again(name):
    settings = settings_of(name)
    x, y, phenotype, train, test = subjects_of(settings)
    model = keras.models.load_model(FOLDER / name / "model.keras")
    groups = phenotype[settings["data"]["groups"]].iloc[train]
    spectra = look_settings(settings)
    seen = ks.introspect(model, x[train], y[train], groups=groups, spectra=spectra)
    log = ks.read_log(FOLDER / name / "spectra.csv")
    saved = log.select(step=log.steps[-1])
    assert saved.rows[KEYS].values.tolist() == seen.rows[KEYS].values.tolist()
    error = np.abs(seen.sigma - saved.sigma) / saved.sigma[:, :1]
    assert np.nanmax(error[comparable(model, saved.rows)]) < ROUNDING
    np.testing.assert_array_equal(np.isnan(seen.sigma), np.isnan(saved.sigma))
    card = (FOLDER / name / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert f"| held out subjects | {scores_row(model, x[test], y[test])} |" in card


def comparable(model, rows):
    """Which spectra do not depend on how TensorFlow was built: those that no tie was pooled into.

    Without oneDNN the gradient of a pooling goes to all of several equal voxels, each in full.
    """
    pooled = any(isinstance(layer, keras.layers.MaxPooling3D) for layer in model.layers)
    if not pooled or gradient_of_a_tie() == 1:
        return np.ones(len(rows), dtype=bool)
    return ((rows["quantity"] == "activation") | (rows["layer"] == "output")).to_numpy()


@tf.function
def gradient_of_a_tie():
    x = tf.ones((1, 2, 2, 2, 1))
    return tf.reduce_sum(tf.gradients(tf.nn.max_pool3d(x, 2, 2, "VALID"), x)[0])


@every_model
def test_a_card_names_the_files_as_they_are(name):
    card = (FOLDER / name / "MODEL_CARD.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| (\S+) \| (\d+) \| ([0-9a-f]{64}) \|$", card, re.MULTILINE)
    contents = {file: (FOLDER / name / file).read_bytes() for file in FILES}
    assert named == [
        (file, str(len(content)), hashlib.sha256(content).hexdigest())
        for file, content in contents.items()
    ]


@every_model
def test_a_folder_holds_its_files_and_nothing_else(name):
    assert {path.name for path in (FOLDER / name).iterdir()} == {*FILES, "MODEL_CARD.md"}


def test_models_are_small():
    sizes = {path: path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()}
    assert max(sizes.values()) < MOST_BYTES_OF_A_MODEL
    assert sum(sizes.values()) < MOST_BYTES
