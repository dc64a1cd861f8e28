"""Functional connectivity and an MLP: how patients and controls teach the same network.

You will learn to load tables by id, to hold out test subjects, to evaluate the same subjects before
every epoch (`SpectralProbe`) and to write every training step to a file (`SpectralCSVLogger`). The
data is simulated: connectivity tables of 90 subjects as CSV files. COBRE's tables of the MLSP
2014 competition, or your own, take their place in the second cell.
"""

# %%
import argparse
from pathlib import Path

import keras
from sklearn.model_selection import train_test_split

import keras_spectral as ks
from keras_spectral.neuro import models
from keras_spectral.neuro.simulate import write_simulated_tables
from keras_spectral.neuro.tables import load_tables

parser = argparse.ArgumentParser()
parser.add_argument("--out", type=Path, default="runs/examples", help="folder of the figure")
OUT = parser.parse_known_args()[0].out  # "known": a notebook has arguments of its own
OUT.mkdir(parents=True, exist_ok=True)
keras.utils.set_random_seed(0)

# %% YOUR DATA: paths of tables, and names of columns. These are simulated.
FEATURES, LABELS = write_simulated_tables(OUT / "01_simulated", n_subjects=90, seed=0)
ID, TARGET, GROUPS = "id", "diagnosis", ["diagnosis"]
# COBRE, as released for MLSP 2014:
# FEATURES, LABELS = ["train_FNC.csv", "train_SBM.csv"], "train_labels.csv"
# ID, TARGET, GROUPS = "Id", "Class", ["Class"]

# %% Tables are joined by id; a line says what was found, joined and dropped.
table, y, phenotype = load_tables(FEATURES, LABELS, TARGET, ID)
x, classes = table.to_numpy("float32"), phenotype.attrs["classes"]
train, test = train_test_split(range(len(y)), test_size=0.25, stratify=y, random_state=0)

# %% The model standardises its input by what the training subjects show, and is trained as usual.
scale = x[train].mean(axis=0), x[train].var(axis=0)
plain = models.mlp(x.shape[1], len(classes), hidden=(64, 32), standardize=scale)
model = ks.SpectralModel.from_model(plain)
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"], spectra=1)

# %% Batches differ from step to step. The probe compares groups on all training subjects, always.
groups = phenotype[GROUPS].iloc[train]
probe = ks.callbacks.SpectralProbe(x[train], y[train], groups=ks.permutations(groups, n=99))
model.fit(
    x[train],
    y[train],
    groups=groups,
    epochs=30,
    batch_size=16,
    callbacks=[probe, ks.callbacks.SpectralCSVLogger(OUT / "01_fnc_mlp.csv")],
    verbose=0,
)

# %% What the network knows of subjects it has never seen, and what the file knows of training.
print(model.evaluate(x[test], y[test], verbose=0, return_dict=True))
last = ks.read_log(OUT / "01_fnc_mlp.csv").select(epoch=29, quantity="gradient")
print(last.summary("effective_rank").groupby(["layer", "group"])["effective_rank"].mean())

# %%
figure = ks.analysis.figures.trajectories(probe.log, quantity="gradient")
figure.savefig(OUT / "01_fnc_mlp.png", dpi=150)

# How to read it: a line is the largest singular value of the gradient that flows through patients
# or controls, and its band is where 95 % of random groups of that size lie. Diagnosis is what the
# network is trained to tell apart, and that alone takes both lines out of their bands: the figure
# shows where and when the classes separate, not a difference beyond the task.
