"""The phenotype of simulated subjects, and checks of arguments that all simulators have.

Diagnosis, sex and site are independent random permutations. A simulator draws them last, after all
values, so with `group_effect=0` the values do not depend on sex or site at all.
"""

import numpy as np
import pandas as pd

from keras_spectral.errors import DataError

FACTORS = {"diagnosis": ("HC", "SZ"), "sex": ("F", "M"), "site": ("A", "B")}
"""Levels of each factor. The second level has the planted difference."""
ID = "id"
EXACT = "%.9g"
"""Format of values in files: nine digits distinguish any two float32 numbers."""


def phenotype_of(generator, n_subjects, factor, group_size):
    """Draw the diagnosis, sex and site of each subject.

    Args:
        generator: `numpy.random.Generator`.
        n_subjects: Number of subjects, half of them SZ.
        factor: The factor with the planted difference.
        group_size: Number of subjects in its second level. Of the others, half of the subjects.

    Returns:
        DataFrame of the text columns `id`, `diagnosis`, `sex`, `site`.
    """
    width = len(str(n_subjects))
    columns = {ID: [f"sim{row:0{width}d}" for row in range(1, n_subjects + 1)]}
    for name, levels in FACTORS.items():
        size = group_size if name == factor else n_subjects // 2
        columns[name] = generator.permutation(np.repeat(levels, [n_subjects - size, size]))
    return pd.DataFrame(columns)


def planted(phenotype, factor):
    """Return which subjects have the planted difference of a factor: a boolean array `[n]`.

    Args:
        phenotype: DataFrame, see `phenotype_of`.
        factor: One of `FACTORS`.
    """
    return (phenotype[factor] == FACTORS[factor][1]).to_numpy()


def planted_size(n_subjects, group_effect, factor, group_size):
    """Check the arguments of a simulator, and return the size of the planted group.

    Args:
        n_subjects: Number of subjects.
        group_effect: Relative increase of the standard deviation in the planted group.
        factor: The factor with the planted difference.
        group_size: Number of subjects in the planted group. `None`: half.

    Returns:
        Integer.

    Raises:
        DataError: If a number is out of range or `factor` is unknown.
    """
    group_size = n_subjects // 2 if group_size is None else group_size
    if factor not in ("site", "sex"):
        raise DataError(
            f"`factor` must be 'site' or 'sex'. Received: factor={factor!r}. "
            "The difference between diagnoses is `effect`."
        )
    if not 0 < group_size < n_subjects:
        raise DataError(
            "`group_size` must leave at least one subject on each side. "
            f"Received: group_size={group_size}, n_subjects={n_subjects}."
        )
    if not group_effect > -1:
        raise DataError(
            "`group_effect` must be above -1, where the group would have no variance. "
            f"Received: group_effect={group_effect}. Try 0 for no difference."
        )
    return group_size
