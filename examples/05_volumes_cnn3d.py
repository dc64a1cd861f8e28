"""Volumes and a 3D CNN: groups that travel with volumes read from disk.

You will learn to load a folder of NIfTI files, to stream them with their groups (`with_groups`) and
to record what a large network can afford: chosen layers, every other epoch. The data is simulated:
60 volumes of 24 x 28 x 24 voxels, where intensities ring more at site B. Your own folder takes its
place in the second cell.
"""

# %%
import argparse
from pathlib import Path

import keras
import tensorflow as tf
from sklearn.model_selection import train_test_split

import keras_spectral as ks
from keras_spectral.neuro import models
from keras_spectral.neuro.simulate import write_simulated_volumes
from keras_spectral.neuro.volumes import load_volumes

parser = argparse.ArgumentParser()
parser.add_argument("--out", type=Path, default="runs/examples", help="folder of the figure")
OUT = parser.parse_known_args()[0].out  # "known": a notebook has arguments of its own
OUT.mkdir(parents=True, exist_ok=True)
keras.utils.set_random_seed(0)

# %% YOUR DATA: a folder of NIfTI files, a table, and names of columns. These are simulated.
VOLUMES, LABELS = write_simulated_volumes(
    OUT / "05_simulated", n_subjects=60, effect=4.0, group_effect=2.0
)
TARGET, GROUPS = "diagnosis", ["site"]
# COBRE's anatomies in a BIDS folder, ids `sub-0040000` (from keras_spectral.neuro.cobre):
# VOLUMES, LABELS = "cobre_bids", cobre_phenotype("COBRE_phenotypic_data.csv")
# TARGET, GROUPS = "group", ["sex"]
# (Crops, which have no millimetres in common, need `space="centre"` below.)

# %% Volumes stay on disk, are resampled to one grid when read, and are never all in memory.
x, y, phenotype = load_volumes(VOLUMES, LABELS, TARGET, join="inner")
train, test = train_test_split(range(len(y)), test_size=0.25, stratify=y, random_state=0)


def dataset(rows):
    """Volumes and classes of some subjects, one by one."""
    return tf.data.Dataset.zip(x[rows].dataset(), tf.data.Dataset.from_tensor_slices(y[rows]))


# %% Groups are attached before shuffling: they follow their volumes from then on.
groups = ks.permutations(phenotype[GROUPS].iloc[train], n=99)
batches = ks.with_groups(dataset(train), groups).shuffle(len(train)).batch(15)

# %% Convolutions have many rows: record them alone, in the first step of every other epoch.
plain = models.cnn3d(x.shape[1:4], len(phenotype.attrs["classes"]), filters=(4, 8, 16))
model = ks.SpectralModel.from_model(plain)
model.compile(
    keras.optimizers.Adam(0.003),
    "sparse_categorical_crossentropy",
    metrics=["accuracy"],
    spectra=ks.Spectra(every=ks.schedules.epochs(2), layers="conv_*"),
)
model.fit(batches, epochs=30, shuffle=False, verbose=0)
print(model.evaluate(dataset(test).batch(15), verbose=0, return_dict=True))

# %%
figure = ks.analysis.figures.trajectories(model.spectral_log, quantity="activation")
figure.savefig(OUT / "05_volumes_cnn3d.png", dpi=150)

# How to read it: a panel is a convolution, a line the largest singular value of the patches that it
# saw of one site in that step's batch, and the band that of 95 % of random groups of the same size.
# In the first, where all volumes have the same norm, the lower line of site B says that its patches
# vary in more directions; that variation makes its activations in the layers above the larger ones.
