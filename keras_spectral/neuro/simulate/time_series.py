"""Simulated time series of regions with planted differences.

Letters: `n` subject, `t` time point, `r` region, `k` network (an orthonormal direction of region
space).

    x[n, t, r] = amplitude[n, k] course[n, t, k] networks[k, r] + noise[n, t, r]

Courses and noise are autoregressive, with the correlation `AUTOCORRELATION` between neighbours in
time, standard deviation 1 and `NOISE_SD`. The logarithm of each subject's amplitude is drawn around
that of `NETWORK_SD`, with the standard deviation `AMPLITUDE_SPREAD`. The planted differences, and
no others, are:

- `SHARED_NETWORKS` (0-3): fluctuate alike in all subjects.
- `DIAGNOSIS_NETWORK` (4): the mean logarithm of the amplitude of SZ lies `effect` standard
  deviations above that of HC.
- `GROUP_NETWORKS` (5-7): amplitudes of the planted group (`site` B or `sex` M) are
  `1 + group_effect` times as large.

All means are equal. So are the temporal spectra. Where every region is brought to standard
deviation 1, as `load_time_series` does, differences of amplitude remain as differences of
correlation: more of the group's variance lies in fewer directions, so its ranks are lower.
"""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.signal import lfilter

from keras_spectral.errors import DataError
from keras_spectral.neuro.simulate.modes import fixed_generator, orthonormal
from keras_spectral.neuro.simulate.phenotype import (
    EXACT,
    ID,
    phenotype_of,
    planted,
    planted_size,
)

SHARED_NETWORKS = slice(0, 4)
DIAGNOSIS_NETWORK = 4
GROUP_NETWORKS = slice(5, 8)
NETWORK_SD = np.array([1.4, 1.2, 1.1, 1.0, 1.2, 1.0, 1.0, 1.0])
"""Typical amplitude of each network: the standard deviation of what it adds over time."""
AMPLITUDE_SPREAD = 0.3
"""Standard deviation of the logarithm of amplitudes between subjects."""
NOISE_SD = 0.5
AUTOCORRELATION = 0.7
"""Between neighbours in time, as of volumes 2 s apart."""


def simulated_time_series(
    n_subjects=60,
    n_time=120,
    n_regions=20,
    effect=3.0,
    group_effect=1.5,
    factor="site",
    group_size=None,
    seed=0,
):
    """Simulated time series of brain regions, and the phenotype of their subjects.

    See the docstring of this module for the planted differences.

    Args:
        n_subjects: Number of subjects, half of them SZ.
        n_time: Number of time points, at least 2.
        n_regions: Number of regions, at least 8.
        effect: Distance between SZ and HC in the logarithm of the amplitude of
            `DIAGNOSIS_NETWORK`, in its standard deviations between subjects. Amplitudes leave no
            linear trace, so it is large: with the default, a small `cnn1d` reaches an AUC near 0.9,
            so does `bilstm` with windows of 4 time points, and `transformer` near 0.75.
        group_effect: How much larger the amplitudes of the planted group are in `GROUP_NETWORKS`:
            `1 + group_effect` times those of the others. 0: no difference.
        factor: The factor with the planted difference: `"site"` (group B) or `"sex"` (group M).
        group_size: Number of subjects in the planted group. `None`: half. Of the other factor,
            half of the subjects have each level.
        seed: Integer seed of the subjects.

    Returns:
        The tuple `(x, phenotype)`: a float32 array `[n_subjects, n_time, n_regions]` around 0, in
        no unit; and a DataFrame of the text columns `id`, `diagnosis`, `sex`, `site` in the same
        order.

    Raises:
        DataError: If a number is out of range or `factor` is unknown.

    Example:
        >>> x, phenotype = simulated_time_series(n_subjects=10, n_time=50)
        >>> x.shape
        (10, 50, 20)
    """
    group_size = planted_size(n_subjects, group_effect, factor, group_size)
    networks = simulated_networks(n_regions)
    _require_time(n_time)
    generator = np.random.default_rng(seed)
    logarithms = generator.normal(size=(n_subjects, len(networks)))
    courses = _autoregressive(generator, (n_subjects, n_time, len(networks)))
    noise = NOISE_SD * _autoregressive(generator, (n_subjects, n_time, n_regions))
    phenotype = phenotype_of(generator, n_subjects, factor, group_size)
    logarithms[planted(phenotype, "diagnosis"), DIAGNOSIS_NETWORK] += effect
    amplitudes = NETWORK_SD * np.exp(AMPLITUDE_SPREAD * logarithms)
    amplitudes[planted(phenotype, factor), GROUP_NETWORKS] *= 1 + group_effect
    values = (amplitudes[:, None] * courses) @ networks + noise
    return values.astype(np.float32), phenotype


def simulated_networks(n_regions=20):
    """Return the directions of region space in which series fluctuate beyond noise.

    Args:
        n_regions: Number of regions, at least 8.

    Returns:
        Float64 array `[8, n_regions]` with orthonormal rows, see `DIAGNOSIS_NETWORK` and
        `GROUP_NETWORKS`. They depend on `n_regions` alone.

    Raises:
        DataError: If there are fewer than 8 regions.
    """
    if n_regions < len(NETWORK_SD):
        raise DataError(
            f"`n_regions` must be at least {len(NETWORK_SD)}, one for each network. "
            f"Received: n_regions={n_regions}. Try n_regions=20."
        )
    return orthonormal(fixed_generator(n_regions, 3).normal(size=(len(NETWORK_SD), n_regions)))


def write_simulated_time_series(folder, **settings):
    """Write simulated subjects to `simulated_series/sim01.csv` … and `simulated_labels.csv`.

    Args:
        folder: Folder to write to, created if it does not exist.
        **settings: Arguments of `simulated_time_series`.

    Returns:
        The tuple of paths `(series, labels)`: a folder with one file per subject, named by its id,
        a row per time point and a column per region; and the phenotype. Both are as
        `neuro.time_series.load_time_series` reads them.

    Raises:
        DataError: As `simulated_time_series` does.
    """
    x, phenotype = simulated_time_series(**settings)
    series, labels = Path(folder) / "simulated_series", Path(folder) / "simulated_labels.csv"
    series.mkdir(parents=True, exist_ok=True)
    columns = [f"region {r}" for r in range(1, x.shape[2] + 1)]
    for name, values in zip(phenotype[ID], x, strict=True):
        table = pd.DataFrame(values, columns=columns)
        table.to_csv(series / f"{name}.csv", index=False, float_format=EXACT)
    phenotype.to_csv(labels, index=False)
    return series, labels


def _autoregressive(generator, shape):
    """Draw series of standard deviation 1 along the second axis, stationary from the start."""
    shocks = generator.normal(size=shape)
    shocks[:, 1:] *= np.sqrt(1 - AUTOCORRELATION**2)
    return lfilter([1], [1, -AUTOCORRELATION], shocks, axis=1)


def _require_time(n_time):
    if n_time < 2:
        raise DataError(f"`n_time` must be at least 2. Received: n_time={n_time}. Try n_time=120.")
