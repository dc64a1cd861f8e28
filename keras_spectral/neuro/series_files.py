"""Files with time series: text, tables, NumPy and MATLAB.

Letters: `n` subject, `t` time point, `r` region or component.
"""

import zlib
from pathlib import Path

import numpy as np
import pandas as pd

from keras_spectral.errors import DataError
from keras_spectral.neuro.reading import shown

IDS = ("subject_id", "subject", "id", "ids", "subjects")
"""Names of an array of ids; without one, the first array of unique values is taken as ids."""


def series_of_all(source, variable, all_subjects):
    """Read the series of all subjects from one file.

    Args:
        source: `.npz`, `.npy` or `.mat` file with an array `[n, t, r]`.
        variable: Name of the array, or `None` if there is one only.
        all_subjects: DataFrame of the phenotype; its order is taken if the file has no ids.

    Returns:
        `(list of arrays [t, r], list of ids)`.

    Raises:
        DataError: If the file cannot be read, or does not fit the phenotype.
    """
    held = _arrays_of(Path(source))
    cubes = {name: array for name, array in held.items() if array.ndim == 3}
    cube = _chosen(cubes, variable, source, "an array [subjects, time, regions]")
    named = [held[name] for name in IDS if name in held]
    alike = [array for array in held.values() if array.shape == cube.shape[:1]]
    unique = [a for a in alike if a.dtype.kind in "iuUSO" and len(set(a.tolist())) == len(a)]
    for ids in named or unique:
        return list(cube), [str(name) for name in ids.tolist()]
    _require_same_number(source, cube, all_subjects)
    return list(cube), list(all_subjects.index)


def series_of_one(found, variable):
    """Return the series of one subject.

    Args:
        found: Array, or path of a file with a table `[t, r]`.
        variable: As in `series_of_all`.

    Returns:
        float64 array `[t, r]`.

    Raises:
        DataError: If the file cannot be read.
    """
    if isinstance(found, np.ndarray):
        return found.astype(float)
    try:
        values = _values(found, variable)
    except DataError:
        raise
    except (OSError, ValueError, TypeError) as error:
        raise DataError(
            "Every file must hold numbers, a row per time point and a column per region. "
            f"Received: {found}, which cannot be read: {str(error).strip()[:200]}."
        ) from error
    if values.ndim != 2 or min(values.shape) < 2:
        raise DataError(
            "Every file must hold a table of at least two time points and two regions. "
            f"Received: {found}, of shape {values.shape}."
        )
    return values


def _values(path, variable):
    suffix = path.suffix.lower()
    if suffix in (".npy", ".mat"):
        tables = {
            name: a for name, a in _arrays_of(path).items() if a.ndim == 2 and min(a.shape) > 1
        }
        return _chosen(tables, variable, path, "a table [time, regions]").astype(float)
    if suffix in (".1d", ".txt"):
        return np.loadtxt(path, comments="#", ndmin=2)
    separator = "\t" if suffix == ".tsv" else ","
    table = pd.read_csv(path, sep=separator, header=None, dtype=str, index_col=False)
    head = pd.to_numeric(table.iloc[0], errors="coerce").isna()
    if head.any():  # a header; a first column without a name holds row numbers
        numbered = pd.isna(table.iloc[0, 0])
        table = table.iloc[1:, 1 if numbered else 0 :]
    return table.astype(float).to_numpy()


def _arrays_of(path):
    suffix = path.suffix.lower()
    try:
        if suffix == ".npy":
            return {path.stem: np.load(path, allow_pickle=False)}
        if suffix == ".npz":
            with np.load(path, allow_pickle=False) as held:
                return {name: held[name] for name in held.files}
        return _matlab(path)
    except (OSError, ValueError, TypeError, EOFError, KeyError, zlib.error) as error:
        raise DataError(
            f"Data must be a file that NumPy or SciPy can read. Received: {path}: {error}."
        ) from error


def _matlab(path):
    from scipy.io.matlab import MatReadError, loadmat

    try:
        held = loadmat(path)
    except MatReadError as error:
        raise ValueError(str(error)) from error
    except NotImplementedError:  # MATLAB 7.3 writes HDF5, axes reversed
        import h5py

        with h5py.File(path) as file:
            sets = {name: item for name, item in file.items() if isinstance(item, h5py.Dataset)}
            held = {name: np.asarray(item).T for name, item in sets.items()}
    return {
        name: array
        for name, array in held.items()
        if isinstance(array, np.ndarray) and array.dtype.kind in "fiu"
    }


def _chosen(arrays, variable, path, what):
    if variable is not None:
        arrays = {name: array for name, array in arrays.items() if name == variable}
    if len(arrays) != 1:
        raise DataError(
            f"`{Path(path).name}` must hold {what}. Received: {len(arrays)} such"
            + (f" ({shown(arrays)}). Try `variable`, the name of one." if arrays else " arrays.")
        )
    return next(iter(arrays.values()))


def _require_same_number(source, cube, all_subjects):
    if len(cube) != len(all_subjects):
        raise DataError(
            "An array without ids must have one series per row of the phenotype, in its order. "
            f"Received: {source}, with {len(cube)} series for {len(all_subjects)} rows. "
            "Try an `.npz` file with the ids beside the array."
        )
