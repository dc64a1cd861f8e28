"""Quickstart: see two sites in a small network, in one screen.

You will learn to train a Keras model that records spectra, to read one of them, and to see whether
two groups differ by more than chance. The data is simulated: 378 connectivity values of each of 90
subjects, half of them patients. Subjects of site B vary more than those of site A along three
directions. The network is trained on the diagnosis, never on the site.
"""

# %%
import argparse
from pathlib import Path

import keras

import keras_spectral as ks
from keras_spectral.neuro.simulate import simulated_fnc

parser = argparse.ArgumentParser()
parser.add_argument("--out", type=Path, default="runs/examples", help="folder of the figure")
OUT = parser.parse_known_args()[0].out  # "known": a notebook has arguments of its own
OUT.mkdir(parents=True, exist_ok=True)
keras.utils.set_random_seed(0)

# %% Simulated data. Yours: an array with a row per subject, a class and a group for each row.
x, phenotype = simulated_fnc(n_subjects=90, group_effect=4.0, factor="site")
y = (phenotype["diagnosis"] == "SZ").to_numpy(int)
site = "site " + phenotype["site"]

# %% A Keras model like any other, but for its class.
inputs = keras.Input((x.shape[1],))
hidden = keras.layers.Dense(64, activation="relu", name="hidden_1")(inputs)
hidden = keras.layers.Dense(32, activation="relu", name="hidden_2")(hidden)
outputs = keras.layers.Dense(2, activation="softmax", name="output")(hidden)
model = ks.SpectralModel(inputs, outputs)
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"], spectra=1)

# %% `groups` are labels of the subjects. `permutations` adds random groups of the same sizes.
model.fit(x, y, groups=ks.permutations(site, n=99), epochs=60, batch_size=len(x), verbose=0)

# %% Every step is in the log: the singular values of each layer, quantity and group.
log = model.spectral_log
print(log.singular_values("hidden_1", "gradient", group="site B", step=0)[:5])

# %% Do the sites differ by more than chance? A mean over all steps, against the permutations.
table = ks.analysis.compare_groups(log, "site B", "site A", summaries="spectral_norm")
print(table[["layer", "quantity", "corrected_a", "corrected_b", "z", "p", "p_adjusted"]].round(3))

# %%
figure = ks.analysis.figures.trajectories(log, quantity="activation")
figure.savefig(OUT / "00_quickstart.png", dpi=150)

# How to read it: each panel is a layer, a line the largest singular value of its activation for the
# subjects of one site, and the band holds 95 % of random groups of that size. Site B lies above its
# band at every step and in every layer: the data differ, and so do the activations of all layers.
