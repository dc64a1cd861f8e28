"""FreeSurfer tables and an MLP: several groupings of the same subjects at once.

You will learn to load what `asegstats2table` and `aparcstats2table` write, to follow two factors
(site and sex) in one training, and to map where and when they differ. The data is simulated:
volumes and thicknesses of 66 regions of 90 subjects. Site B has 30 of them and varies more than
site A along three directions; between the sexes nothing is planted. Your own tables take their
place in the second cell.
"""

# %%
import argparse
from pathlib import Path

import keras
from sklearn.model_selection import train_test_split

import keras_spectral as ks
from keras_spectral.neuro import models
from keras_spectral.neuro.simulate import write_simulated_freesurfer
from keras_spectral.neuro.tables import load_tables
from keras_spectral.neuro.targets import group_columns

parser = argparse.ArgumentParser()
parser.add_argument("--out", type=Path, default="runs/examples", help="folder of the figure")
OUT = parser.parse_known_args()[0].out  # "known": a notebook has arguments of its own
OUT.mkdir(parents=True, exist_ok=True)
keras.utils.set_random_seed(0)

# %% YOUR DATA: paths of tables, and names of columns. These are simulated.
FEATURES, LABELS = write_simulated_freesurfer(
    OUT / "02_simulated", n_subjects=90, group_effect=2.0, group_size=30
)
TARGET, GROUPS = "diagnosis", ["site", "sex"]
COMPARED = [("site=B", "site=A"), ("sex=M", "sex=F")]
# COBRE, after FreeSurfer; a bin of a column of numbers is a group too ("age<35", "age:3"):
# FEATURES = ["aseg.tsv", "lh.aparc.thickness.tsv", "rh.aparc.thickness.tsv"]
# LABELS = keras_spectral.neuro.cobre.cobre_phenotype("COBRE_phenotypic_data.csv")
# TARGET, GROUPS = "group", ["sex", "age<35"]
# COMPARED = [("sex=Male", "sex=Female"), ("age<35=age < 35", "age<35=age ≥ 35")]

# %% Volumes are thousands of mm3, thicknesses a few mm: the model standardises its input itself.
table, y, phenotype = load_tables(FEATURES, LABELS, TARGET, join="inner")
x, classes = table.to_numpy("float32"), phenotype.attrs["classes"]
train, test = train_test_split(range(len(y)), test_size=0.25, stratify=y, random_state=0)
scale = x[train].mean(axis=0), x[train].var(axis=0)
plain = models.mlp(x.shape[1], len(classes), hidden=(64, 32), standardize=scale)
model = ks.SpectralModel.from_model(plain)
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"], spectra=None)

# %% Only the probe records (`spectra=None` above). A table of groups has a column per factor.
groups = group_columns(phenotype, GROUPS).iloc[train]
probe = ks.callbacks.SpectralProbe(x[train], y[train], groups=ks.permutations(groups, n=99))
model.fit(x[train], y[train], epochs=30, batch_size=16, callbacks=[probe], verbose=0)
print(model.evaluate(x[test], y[test], verbose=0, return_dict=True))

# %% The same question for both factors: which differences are more than chance?
for a, b in COMPARED:
    differences = ks.analysis.compare_groups(probe.log, a, b, summaries="frobenius_norm")
    print(f"{a} − {b}")
    print(differences[["layer", "quantity", "n_a", "n_b", "z", "p", "p_adjusted"]].round(3))

# %%
figure = ks.analysis.figures.z_map(probe.log, *COMPARED[0], summary="frobenius_norm")
figure.savefig(OUT / "02_freesurfer_mlp.png", dpi=150)

# How to read it: a row is a matrix of the network, a column an evaluation, a colour how far the two
# sites differ, in units of what random groups of their sizes differ by. Dots along a whole row are
# a finding (here in what enters both hidden layers), single dots are expected.
