"""Simulated tables of FreeSurfer with planted differences: volumes and thicknesses of regions.

Letters: `n` subject, `f` region, `k` mode (an orthonormal direction of region space).

    log x[n, f] = log typical[f] + spread[f] (scores[n, k] modes[k, f] + noise[n, f])

so values are positive, and skewed as real ones are. The planted differences, and no others, are:

- `SHARED_MODES` (0-3): all volumes together (head size), all thicknesses together, and two more,
  variance shared by all subjects.
- `DIAGNOSIS_MODE` (4): the mean score of SZ lies `effect` above that of HC, in standard deviations.
  Ventricles and pallidum are larger, other volumes smaller, the cortex of frontal and temporal
  lobes thinner. Spread is equal.
- `GROUP_MODES` (5-9): scores of the planted group (`site` B or `sex` M) are `1 + group_effect`
  times as wide, as of a scanner that repeats itself less well. Their mean is equal. The singular
  values of the group's input matrix differ.

The modes are the same in every study.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from keras_spectral.neuro.simulate.modes import fixed_generator, orthonormal
from keras_spectral.neuro.simulate.phenotype import (
    EXACT,
    ID,
    phenotype_of,
    planted,
    planted_size,
)

SHARED_MODES = slice(0, 4)
DIAGNOSIS_MODE = 4
GROUP_MODES = slice(5, 10)
MODE_SD = np.array([3.0, 2.5, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0])
"""Standard deviation of the scores of each mode. With `NOISE_SD`, a region has about 1."""
NOISE_SD = 0.5
STRUCTURES = {  # typical volume in mm3, change in SZ
    "Lateral-Ventricle": (7500, 1.0),
    "Thalamus": (7300, -0.7),
    "Caudate": (3600, -0.2),
    "Putamen": (5000, -0.2),
    "Pallidum": (1900, 0.5),
    "Hippocampus": (4100, -1.0),
    "Amygdala": (1650, -0.7),
    "Accumbens-area": (560, -0.7),
}
CORTEX = {  # typical thickness in mm, change in SZ
    "bankssts": (2.5, -0.8),
    "caudalmiddlefrontal": (2.5, -0.8),
    "cuneus": (1.9, 0.0),
    "entorhinal": (3.3, -0.5),
    "fusiform": (2.7, -1.0),
    "inferiorparietal": (2.5, -0.3),
    "inferiortemporal": (2.8, -1.0),
    "lateraloccipital": (2.2, 0.0),
    "lateralorbitofrontal": (2.6, -0.8),
    "lingual": (2.0, 0.0),
    "medialorbitofrontal": (2.4, -0.8),
    "middletemporal": (2.8, -1.0),
    "parahippocampal": (2.7, -0.5),
    "paracentral": (2.4, 0.0),
    "parsopercularis": (2.6, -0.8),
    "parsorbitalis": (2.7, -0.8),
    "parstriangularis": (2.4, -0.8),
    "postcentral": (2.1, 0.0),
    "precentral": (2.6, 0.0),
    "precuneus": (2.4, -0.3),
    "rostralmiddlefrontal": (2.4, -0.8),
    "superiorfrontal": (2.7, -1.0),
    "superiorparietal": (2.2, 0.0),
    "superiortemporal": (2.8, -1.0),
    "insula": (3.0, -1.0),
}
SPREAD = {"volume": 0.12, "thickness": 0.05}
"""Standard deviation of the logarithm of a region: how much subjects differ, as a share."""


def simulated_freesurfer(
    n_subjects=90, effect=2.0, group_effect=1.0, factor="site", group_size=None, seed=0
):
    """Simulated volumes and thicknesses of brain regions, and the phenotype of their subjects.

    See the docstring of this module for the planted differences.

    Args:
        n_subjects: Number of subjects, half of them SZ.
        effect: Distance between the means of SZ and HC along `DIAGNOSIS_MODE`, in standard
            deviations of that mode. With the default, linear classifiers reach an AUC near 0.9.
        group_effect: How much wider the scores of the planted group are in `GROUP_MODES`: their
            standard deviation is `1 + group_effect` times that of the others. 0: no difference.
        factor: The factor with the planted difference: `"site"` (group B) or `"sex"` (group M).
        group_size: Number of subjects in the planted group. `None`: half. Of the other factor,
            half of the subjects have each level.
        seed: Integer seed of the subjects.

    Returns:
        The tuple `(x, phenotype)`: a float32 DataFrame `[n_subjects, 66]` indexed by id, 16 volumes
        in mm3 and 25 thicknesses in mm of either hemisphere; and a DataFrame of the text columns
        `id`, `diagnosis`, `sex`, `site` in the same order.

    Raises:
        DataError: If a number is out of range or `factor` is unknown.

    Example:
        >>> x, phenotype = simulated_freesurfer(n_subjects=40)
        >>> x.shape, x.columns[0], x.columns[-1]
        ((40, 66), 'Left-Lateral-Ventricle', 'rh_insula_thickness')
    """
    group_size = planted_size(n_subjects, group_effect, factor, group_size)
    regions, modes = simulated_regions(), simulated_region_modes()
    generator = np.random.default_rng(seed)
    scores = generator.normal(size=(n_subjects, len(modes))) * MODE_SD
    noise = generator.normal(scale=NOISE_SD, size=(n_subjects, len(regions)))
    phenotype = phenotype_of(generator, n_subjects, factor, group_size)
    scores[planted(phenotype, "diagnosis"), DIAGNOSIS_MODE] += effect * MODE_SD[DIAGNOSIS_MODE]
    scores[planted(phenotype, factor), GROUP_MODES] *= 1 + group_effect
    spread = regions["measure"].map(SPREAD).to_numpy()
    values = regions["typical"].to_numpy() * np.exp(spread * (scores @ modes + noise))
    ids = pd.Index(phenotype[ID], name=ID)
    return pd.DataFrame(values.astype(np.float32), ids, regions.index), phenotype


def simulated_regions():
    """Return the regions of simulated tables of FreeSurfer.

    Returns:
        DataFrame with one row per region, indexed by its name in the tables: `table`, the name of
        the table's id column, `measure` (`"volume"` or `"thickness"`), `typical` (mm3, mm), and
        `change`, the sign and relative size of its change in SZ.
    """
    rows = [
        (f"{side}-{name}", "Measure:volume", "volume", *numbers)
        for side in ("Left", "Right")
        for name, numbers in STRUCTURES.items()
    ] + [
        (f"{side}_{name}_thickness", f"{side}.aparc.thickness", "thickness", *numbers)
        for side in ("lh", "rh")
        for name, numbers in CORTEX.items()
    ]
    columns = ["region", "table", "measure", "typical", "change"]
    return pd.DataFrame(rows, columns=columns).set_index("region")


def simulated_region_modes():
    """Return the directions of region space in which subjects differ beyond noise.

    Returns:
        Float64 array `[10, 66]` with orthonormal rows, see `DIAGNOSIS_MODE` and `GROUP_MODES`; each
        is a pattern made orthonormal to those before it.
    """
    regions = simulated_regions()
    volume = (regions["measure"] == "volume").to_numpy(float)
    rest = fixed_generator(len(regions), 2).normal(size=(len(MODE_SD) - 3, len(regions)))
    patterns = np.vstack([volume, 1 - volume, rest[:2], regions["change"], rest[2:]])
    return orthonormal(patterns)


def write_simulated_freesurfer(folder, **settings):
    """Write simulated subjects as `asegstats2table` and `aparcstats2table` write theirs.

    Args:
        folder: Folder to write to, created if it does not exist.
        **settings: Arguments of `simulated_freesurfer`.

    Returns:
        The tuple `(features, labels)`: a list of the paths of `simulated_aseg.tsv`,
        `simulated_lh.aparc.thickness.tsv` and `simulated_rh.aparc.thickness.tsv`, and the path of
        `simulated_labels.csv`, as `neuro.tables.load_tables` reads them. FreeSurfer's columns of
        the whole brain are not among them.

    Raises:
        DataError: As `simulated_freesurfer` does.
    """
    x, phenotype = simulated_freesurfer(**settings)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    features = []
    for table, regions in simulated_regions().groupby("table", sort=False):
        features.append(folder / f"simulated_{str(table).replace('Measure:volume', 'aseg')}.tsv")
        x[regions.index].to_csv(features[-1], sep="\t", index_label=table, float_format=EXACT)
    labels = folder / "simulated_labels.csv"
    phenotype.to_csv(labels, index=False)
    return features, labels
