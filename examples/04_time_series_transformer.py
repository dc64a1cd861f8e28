"""Time series and a Transformer: follow a difference through the layers.

You will learn what is captured of each layer (`coverage`), to choose layers, quantities and
recorded steps, and to map effective ranks from input to output. The data is simulated: 100 subjects
with 120 time points of 20 regions, where three networks of regions fluctuate more at site B. Your
own folder, or COBRE's regions, take their place in the second cell.
"""

# %%
import argparse
from pathlib import Path

import keras
from sklearn.model_selection import train_test_split

import keras_spectral as ks
from keras_spectral.neuro import models
from keras_spectral.neuro.simulate import write_simulated_time_series
from keras_spectral.neuro.time_series import load_time_series

parser = argparse.ArgumentParser()
parser.add_argument("--out", type=Path, default="runs/examples", help="folder of the figure")
OUT = parser.parse_known_args()[0].out  # "known": a notebook has arguments of its own
OUT.mkdir(parents=True, exist_ok=True)
keras.utils.set_random_seed(0)

# %% YOUR DATA: a folder with a file per subject, a table, and names of columns. It is simulated.
SERIES, LABELS = write_simulated_time_series(
    OUT / "04_simulated", n_subjects=100, effect=4.0, group_effect=2.0
)
TARGET, GROUPS, COMPARED = "diagnosis", ["site"], ("site=B", "site=A")
# COBRE, as NIAK preprocessed it, in the regions of an atlas (from keras_spectral.neuro.cobre):
# SERIES, LABELS = "cobre_series", cobre_time_series("nilearn_data", "atlas.nii.gz", "cobre_series")
# TARGET, GROUPS, COMPARED = "group", ["sex"], ("sex=Male", "sex=Female")
x, y, phenotype = load_time_series(SERIES, LABELS, TARGET)
train, test = train_test_split(range(len(y)), test_size=0.25, stratify=y, random_state=0)

# %% Windows of 8 time points are the tokens; `coverage` lists every weight and how it is captured.
n_classes = len(phenotype.attrs["classes"])
plain = models.transformer(x.shape[1], x.shape[2], n_classes, width=32, feed_forward=64)
model = ks.SpectralModel.from_model(plain)
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"], spectra=None)
print(ks.coverage(model)[["layer", "weight", "how"]].to_string(index=False))

# %% The probe records the input of each layer: layers by pattern, one quantity, every other epoch.
# Query, key and value of a block have the same activation, so the last of them is enough.
layers = ["embedding", "*/value", "*/attention_output", "hidden_*", "back_*", "output"]
probe = ks.callbacks.SpectralProbe(
    x[train],
    y[train],
    groups=ks.permutations(phenotype[GROUPS].iloc[train], n=99),
    every=2,
    spectra=ks.Spectra(layers=layers, quantities="activation"),
)
model.fit(x[train], y[train], epochs=22, batch_size=15, callbacks=[probe], verbose=0)
print(model.evaluate(x[test], y[test], verbose=0, return_dict=True))

# %%
figure = ks.analysis.figures.z_map(probe.log, *COMPARED, summary="effective_rank")
figure.savefig(OUT / "04_time_series_transformer.png", dpi=150)

# How to read it: rows go from the network's input to its output, columns from the first evaluation
# to the last, and purple says that the activations of site B have fewer directions than those of
# random groups of its size. What was planted in the data stays in the first row, and most layers
# pass it on before training; training, which asks for the diagnosis alone, makes it fade in most of
# them.
