"""Simulated functional network connectivity with planted differences.

Letters: `n` subject, `f` feature, `k` mode (an orthonormal direction of feature space).

    x[n, f] = mean[f] + scores[n, k] modes[k, f] + noise[n, f]

The planted differences, and no others, are:

- `NETWORK_MODES` (0-5): variance shared by all subjects, as in real connectivity.
- `DIAGNOSIS_MODE` (6): the mean score of SZ lies `effect` above that of HC. Spread is equal.
- `GROUP_MODES` (7-9): scores of the planted group (`site` B or `sex` M) are `1 + group_effect`
  times as wide. Their mean is equal. The singular values of the group's input matrix differ.

`mean` and `modes` depend on `n_features` alone.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from keras_spectral.errors import DataError
from keras_spectral.neuro.simulate.modes import fixed_generator, orthonormal
from keras_spectral.neuro.simulate.phenotype import (
    EXACT,
    ID,
    phenotype_of,
    planted,
    planted_size,
)

NETWORK_MODES = slice(0, 6)
DIAGNOSIS_MODE = 6
GROUP_MODES = slice(7, 10)
MODE_SD = np.array([2.2, 1.9, 1.7, 1.5, 1.3, 1.2, 1.0, 1.0, 1.0, 1.0])
"""Standard deviation of the scores of each mode; with `NOISE_SD`, the scale of real FNC."""
NOISE_SD = 0.25


def simulated_fnc(
    n_subjects=90,
    n_features=378,
    effect=1.75,
    group_effect=1.0,
    factor="site",
    group_size=None,
    seed=0,
):
    """Simulated connectivity vectors and the phenotype of their subjects.

    The values have the size of Fisher-z correlations between 28 components (28 · 27 / 2 = 378),
    a low-rank part and noise. They are drawn directly, not computed from time series. See the
    docstring of this module for the planted differences.

    Args:
        n_subjects: Number of subjects, half of them SZ.
        n_features: Number of features, at least 10.
        effect: Distance between the means of SZ and HC along `DIAGNOSIS_MODE`, in standard
            deviations of that mode. With the default, linear classifiers reach an AUC near 0.8.
        group_effect: How much wider the scores of the planted group are in `GROUP_MODES`: their
            standard deviation is `1 + group_effect` times that of the others. 0: no difference.
        factor: The factor with the planted difference: `"site"` (group B) or `"sex"` (group M).
        group_size: Number of subjects in the planted group. `None`: half. Of the other factor,
            half of the subjects have each level.
        seed: Integer seed of the subjects.

    Returns:
        The tuple `(x, phenotype)`: a float32 array `[n_subjects, n_features]` in Fisher-z units,
        and a DataFrame of the text columns `id`, `diagnosis`, `sex`, `site` in the same order.

    Raises:
        DataError: If a number is out of range or `factor` is unknown.

    Example:
        >>> x, phenotype = simulated_fnc(n_subjects=90, group_size=30)
        >>> x.shape, phenotype["site"].value_counts().to_dict()
        ((90, 378), {'A': 60, 'B': 30})
    """
    group_size = planted_size(n_subjects, group_effect, factor, group_size)
    modes = simulated_modes(n_features)
    generator = np.random.default_rng(seed)
    scores = generator.normal(size=(n_subjects, len(modes))) * MODE_SD
    noise = generator.normal(scale=NOISE_SD, size=(n_subjects, n_features))
    phenotype = phenotype_of(generator, n_subjects, factor, group_size)
    scores[planted(phenotype, "diagnosis"), DIAGNOSIS_MODE] += effect * MODE_SD[DIAGNOSIS_MODE]
    scores[planted(phenotype, factor), GROUP_MODES] *= 1 + group_effect
    return (_mean(n_features) + scores @ modes + noise).astype(np.float32), phenotype


def simulated_modes(n_features=378):
    """The directions of feature space in which simulated subjects differ beyond noise.

    Each is the upper triangle of a rank one connectivity pattern `u uᵀ`, made orthonormal to those
    before it.

    Args:
        n_features: Number of features, at least 10.

    Returns:
        Float64 array `[10, n_features]` with orthonormal rows, see `DIAGNOSIS_MODE` and
        `GROUP_MODES`.

    Raises:
        DataError: If there are fewer than 10 features.

    Example:
        >>> modes = simulated_modes(378)
        >>> bool(np.allclose(modes @ modes.T, np.eye(10)))
        True
    """
    if n_features < len(MODE_SD):
        raise DataError(
            f"`n_features` must be at least {len(MODE_SD)}, one for each mode. "
            f"Received: n_features={n_features}. Try n_features=378."
        )
    n_components = int(np.ceil((1 + np.sqrt(1 + 8 * n_features)) / 2))
    loadings = fixed_generator(n_features, 2).normal(size=(len(MODE_SD), n_components))
    rows, columns = np.triu_indices(n_components, k=1)
    return orthonormal((loadings[:, rows] * loadings[:, columns])[:, :n_features])


def write_simulated_tables(folder, **settings):
    """Write simulated subjects to `simulated_FNC.csv` and `simulated_labels.csv`.

    They are read by `keras-spectral run --features simulated_FNC.csv --labels simulated_labels.csv
    --id id --target diagnosis --groups site`.

    Args:
        folder: Folder to write to, created if it does not exist.
        **settings: Arguments of `simulated_fnc`.

    Returns:
        The tuple of paths `(features, labels)`.

    Raises:
        DataError: As `simulated_fnc` does.
    """
    x, phenotype = simulated_fnc(**settings)
    columns = [f"FNC{f}" for f in range(1, x.shape[1] + 1)]
    features = pd.DataFrame(x, columns=columns, index=pd.Index(phenotype[ID], name=ID))
    paths = Path(folder) / "simulated_FNC.csv", Path(folder) / "simulated_labels.csv"
    Path(folder).mkdir(parents=True, exist_ok=True)
    features.to_csv(paths[0], float_format=EXACT)
    phenotype.to_csv(paths[1], index=False)
    return paths


def _mean(n_features):
    return 0.13 + 0.19 * fixed_generator(n_features, 1).normal(size=n_features)
