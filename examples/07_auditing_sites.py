"""Auditing sites: does a network that learns the diagnosis treat two sites alike?

You will learn to compare groups over the folds of a cross-validation, with one set of permutations
for all of them, and to write a report. The data is simulated: connectivity of 90 subjects, where
the 30 of site B vary more than those of site A along three directions. The network is trained
on the diagnosis, never on the site.
"""

# %%
import argparse
from pathlib import Path

import keras
from sklearn.model_selection import StratifiedKFold

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
FEATURES, LABELS = write_simulated_tables(
    OUT / "07_simulated", n_subjects=90, group_effect=2.0, group_size=30
)
ID, TARGET, GROUPS, COMPARED = "id", "diagnosis", ["site"], ("site=B", "site=A")
SIMULATED = "Site B varies more than site A along three directions."  # real data: None
# COBRE has one site; there the same audit asks about the sexes: ["sex"], ("sex=Male", "sex=Female")
table, y, phenotype = load_tables(FEATURES, LABELS, TARGET, ID)
x, classes = table.to_numpy("float32"), phenotype.attrs["classes"]

# %% Drawn once, sliced in every fold: a permutation moves the same subjects throughout.
groups = ks.permutations(phenotype[GROUPS], n=99)
folds = StratifiedKFold(5, shuffle=True, random_state=0)

# %% A plain Keras model per fold: a probe works with any. It has the training subjects of the fold.
logs = {}
for fold, (train, test) in enumerate(folds.split(x, y)):
    scale = x[train].mean(axis=0), x[train].var(axis=0)
    model = models.mlp(x.shape[1], len(classes), hidden=(64, 32), standardize=scale)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    probe = ks.callbacks.SpectralProbe(x[train], y[train], groups=groups[train], every=3)
    model.fit(x[train], y[train], epochs=24, callbacks=[probe], verbose=0)
    accuracy = model.evaluate(x[test], y[test], verbose=0, return_dict=True)["accuracy"]
    print(f"fold {fold}: accuracy {accuracy:.2f} on {len(test)} test subjects")
    logs[f"fold {fold}"] = probe.log

# %% The audit: one table for all folds, corrected for all that is asked at once (`p_adjusted`).
log = ks.SpectralLog.concat(logs)
differences = ks.analysis.compare_groups(log, *COMPARED, summaries="frobenius_norm")
print(differences[["layer", "quantity", "z", "p", "p_adjusted", "n_runs"]].round(3))
log.provenance["simulated"] = SIMULATED
ks.analysis.report(log, OUT / "07_auditing_sites.html", a=COMPARED[0], b=COMPARED[1])

# %%
figure = ks.analysis.figures.z_map(log, *COMPARED, summary="frobenius_norm")
figure.savefig(OUT / "07_auditing_sites.png", dpi=150)

# How to read it: a row is a matrix of the network, a column an evaluation, a colour how far the two
# sites differ over all folds, in units of what random groups of their sizes differ by. Rows of dots
# say that site B enters every layer with more spread and, early on, teaches the first layer harder;
# that sites are treated unlike does not say yet that predictions suffer.
