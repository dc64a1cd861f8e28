"""Time series and an LSTM: whole spectra of a recurrent network.

You will learn to load a folder of time series, what is recorded of a recurrent layer, to record
every tenth step only, and to draw whole spectra instead of their largest value. The data is
simulated: 100 subjects with 120 time points of 20 regions, where three networks of regions
fluctuate more at site B. Your own folder, or COBRE's regions, take their place in the second cell.
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
    OUT / "03_simulated", n_subjects=100, effect=4.0, group_effect=2.0
)
TARGET, GROUPS = "diagnosis", ["site"]
# COBRE, as NIAK preprocessed it, in the regions of an atlas (from keras_spectral.neuro.cobre):
# SERIES, LABELS = "cobre_series", cobre_time_series("nilearn_data", "atlas.nii.gz", "cobre_series")
# TARGET, GROUPS = "group", ["sex"]

# %% Every region of every subject is standardised over its own time points.
x, y, phenotype = load_time_series(SERIES, LABELS, TARGET)
train, test = train_test_split(range(len(y)), test_size=0.25, stratify=y, random_state=0)

# %% An encoder of windows of 10 time points, a bidirectional LSTM over them, a mean, a softmax.
plain = models.bilstm(x.shape[1], x.shape[2], len(phenotype.attrs["classes"]), encoder=32, units=16)
model = ks.SpectralModel.from_model(plain)
model.compile(
    keras.optimizers.Adam(0.003),
    "sparse_categorical_crossentropy",
    metrics=["accuracy"],
    spectra=10,
)

# %% A recurrent layer has two weights: of its input, and of its state. Both are seen step by step.
groups = phenotype[GROUPS].iloc[train]
model.fit(x[train], y[train], groups=groups, epochs=20, batch_size=25, verbose=0)
print(model.evaluate(x[test], y[test], verbose=0, return_dict=True))
log = model.spectral_log
print(log.rows[["layer", "weight"]].drop_duplicates().to_string(index=False))

# %%
begin, middle = log.steps[0], log.steps[len(log.steps) // 2]
forward = "bilstm/forward_lstm/lstm_cell"
figure = ks.analysis.figures.spectra(log, "gradient", steps=[begin, middle], layers=forward)
figure.savefig(OUT / "03_time_series_lstm.png", dpi=150)

# How to read it: a row is a weight of the forward LSTM, a column a training step, and a line all
# singular values of the gradient that flows through one site: the steeper it falls, the fewer
# directions are taught. There are no bands here, so the figure shows shapes; whether sites differ
# by more than chance is a question for permutations, as in the next example.
