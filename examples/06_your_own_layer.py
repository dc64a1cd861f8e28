"""A layer of your own: tell the library in ten lines what its weight multiplies.

You will learn to register a layer that no library knows, to have the registration checked, and to
see in spectra what its shape allows. The layer sums regions into networks on both sides of a
connectivity matrix, Z = Wᵀ X W. The data is simulated: connectivity of 28 components in 90
subjects, as a table. COBRE's table of the MLSP 2014 competition has the same 378 columns.
"""

# %%
import argparse
from pathlib import Path

import keras
import numpy as np
from keras import ops

import keras_spectral as ks
from keras_spectral.neuro.simulate import write_simulated_tables
from keras_spectral.neuro.tables import load_tables

parser = argparse.ArgumentParser()
parser.add_argument("--out", type=Path, default="runs/examples", help="folder of the figure")
OUT = parser.parse_known_args()[0].out  # "known": a notebook has arguments of its own
OUT.mkdir(parents=True, exist_ok=True)
keras.utils.set_random_seed(0)

# %% YOUR DATA: a table with the upper triangle of each subject's connectivity. It is simulated.
FEATURES, LABELS = write_simulated_tables(OUT / "06_simulated", n_subjects=90, seed=0)
ID, TARGET, GROUPS = "id", "diagnosis", ["diagnosis"]
# COBRE, as released for MLSP 2014:
# FEATURES, LABELS = "train_FNC.csv", "train_labels.csv"
# ID, TARGET, GROUPS = "Id", "Class", ["Class"]
table, y, phenotype = load_tables(FEATURES, LABELS, TARGET, ID)
n_regions = round((1 + np.sqrt(1 + 8 * table.shape[1])) / 2)
row, column = np.triu_indices(n_regions, k=1)
x = np.zeros((len(table), n_regions, n_regions), "float32")
x[:, row, column] = x[:, column, row] = table


# %% The layer, as one writes it in Keras.
@keras.saving.register_keras_serializable("examples")
class Networks(keras.layers.Layer):
    """Connectivity between networks, Wᵀ X W, from that between regions, X."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1], self.units), name="w")

    def call(self, inputs):
        return ops.transpose(self.w) @ inputs @ self.w


# %% Where does W enter? Once from the right, Z = (Wᵀ X) W, and once from the left, Zᵀ = (X W)ᵀ W.
@ks.register_layer(Networks)
def networks_factors(layer, inputs, adjoint):
    right = ops.transpose(layer.w) @ inputs
    left = ops.transpose(inputs @ layer.w, (0, 2, 1))
    activation = ops.concatenate([right, left], axis=1)  # rows of both uses, one below the other
    return {"w": (activation, ops.concatenate([adjoint, ops.transpose(adjoint, (0, 2, 1))], 1))}


print(ks.check_layer(Networks(5, name="networks"), x[:8]))  # an error would say what does not fit

# %% From here on it is a layer like any other.
inputs = keras.Input(x.shape[1:])
between = Networks(8, name="networks")(inputs)
outputs = keras.layers.Dense(2, activation="softmax", name="output")(
    keras.layers.Flatten()(keras.layers.LayerNormalization(name="normal")(between))
)
model = ks.SpectralModel(inputs, outputs)
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"], spectra=1)
history = model.fit(x, y, groups=phenotype[GROUPS], epochs=60, batch_size=len(x), verbose=0)
print(f"accuracy on the training subjects: {history.history['accuracy'][-1]:.2f}")

# %%
log = model.spectral_log
figure = ks.analysis.figures.spectra(log, "gradient", steps=[0, 20, 59], layers="networks")
figure.savefig(OUT / "06_your_own_layer.png", dpi=150)

# How to read it: a panel is a training step, a line all singular values of the gradient of one
# group, and it ends at 8, the rank that a weight of 8 networks can have. The gap between first and
# last value is the gap between the direction of W that is taught most and the one taught least.
