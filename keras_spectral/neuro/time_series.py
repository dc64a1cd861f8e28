"""Time series of regions or components: loading, padding, windows, connectivity.

Letters: `n` subject, `t` time point, `r` region or component, `w` window.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from keras_spectral.errors import DataError
from keras_spectral.neuro.reading import counted
from keras_spectral.neuro.series_files import series_of_all, series_of_one
from keras_spectral.neuro.subjects import (
    Subjects,
    files_of,
    matched,
    phenotype_table,
    with_target,
)

SUFFIXES = (".1d", ".csv", ".tsv", ".txt", ".npy", ".mat")
"""Files with the series of one subject."""
STACKS = (".npz", ".npy")
"""Files with the series of all subjects."""
FLAT = 1e-6
"""A region is constant if it varies by less than this share of its largest value."""


def load_time_series(
    source,
    phenotype,
    target,
    id_column="",
    *,
    where=None,
    join="exact",
    pattern=None,
    variable=None,
    length="pad",
    standardize=True,
):
    """Load time series and the phenotype of the same subjects.

    Args:
        source: Folder, or a path with `*`, of files with one subject each, rows in time, a column
            per region: `.1D`, `.csv`, `.tsv`, `.txt`, `.npy` or `.mat` (as GIFT writes them). Or
            one `.npz` with an array `[n, t, r]` and the ids `[n]`, or one `.npy` with such an
            array, whose order is that of the phenotype.
        phenotype: Path of a table with one row per subject, or a DataFrame.
        target: Column of the phenotype to predict.
        id_column: Column of the ids; `""` is the first one.
        where: Dictionary from column to the value, or values, of the subjects to keep.
        join: `"exact"`: every subject must have a series, and every series a subject. `"inner"`:
            keep the subjects that have both.
        pattern: Regular expression whose first group is the id in a file's name; `None` finds the
            id by itself, see `subjects.found_for`.
        variable: Name of the array in `.mat` or `.npz` files that hold several.
        length: `"pad"`: pad to the longest series with zeros, which the models mask; `"crop"`: crop
            to the shortest; or a number of time points, to which series are padded or cropped.
        standardize: Standardise every region of every subject to mean 0 and standard deviation 1
            over its own time points. No statistics of other subjects are used.

    Returns:
        `Subjects` with `x` a float32 array `[n, t, r]`; time points that are padded are 0 in every
        region, and at the end.

    Raises:
        DataError: If a file cannot be read, or files and phenotype do not fit.
    """
    all_subjects, _ = phenotype_table(phenotype, id_column)
    stack = Path(source).suffix.lower() in STACKS and Path(source).is_file()
    if stack:
        found, names = series_of_all(source, variable, all_subjects)
    else:
        found = files_of(source, SUFFIXES)
        names = [path.name for path in found]
    table, indices, dropped = matched(all_subjects, where, names, join, pattern)
    series = {
        name: series_of_one(found[k], variable)
        for name, k in zip(table.index, indices, strict=True)
    }
    _require_regions(series)
    notes = _flat(series)
    lengths = [len(own) for own in series.values()]
    n_time = _n_time(length, lengths)
    x = np.stack([_fitted(own, n_time, standardize) for own in series.values()])
    notes += _unequal(lengths, n_time)
    report = (
        f"{Path(source).name}: {len(found)} series; joined {len(x)} subjects, "
        f"{x.shape[1]} time points x {x.shape[2]} regions; "
        f"dropped {', '.join(dropped) or 'nothing'}" + "".join(f"; {note}" for note in notes)
    )
    return with_target(x, table, target, report)


def windows(subjects, length, step=None):
    """Cut every subject's series into windows: more examples, with fewer time points each.

    Windows of one subject are not independent: they must be in the same fold, and permutations must
    permute subjects. Pass the index of the phenotype to `Study` as `ids`.

    Args:
        subjects: `Subjects` with `x [n, t, r]`.
        length: Time points of a window.
        step: Time points between the beginnings of two windows; `None`: no overlap.

    Returns:
        `Subjects` with one example per window, `[w, length, r]`, without padded windows, and the
        row of its subject in the phenotype for each.

    Raises:
        DataError: If there is no such window.
    """
    step = length if step is None else step
    x, y, phenotype = subjects
    if not (0 < length <= x.shape[1] and step > 0):
        raise DataError(
            "`length` must be at most the number of time points, and `step` positive. "
            f"Received: length={length}, step={step}, for {x.shape[1]} time points."
        )
    begins = range(0, x.shape[1] - length + 1, step)
    known = lengths_of(x)
    indices = [(i, begin) for i in range(len(x)) for begin in begins if begin + length <= known[i]]
    if not indices:
        raise DataError(
            "`length` must be at most the time points of some subject, without padding. "
            f"Received: length={length}, for at most {known.max()}."
        )
    owner = [i for i, _ in indices]
    rows = phenotype.iloc[owner]
    rows.attrs = phenotype.attrs
    return Subjects(np.stack([x[i, b : b + length] for i, b in indices]), y[owner], rows)


def connectivity(subjects, kind="correlation"):
    """Return the connectivity of every subject as a vector.

    Args:
        subjects: `Subjects` with `x [n, t, r]`, or such an array.
        kind: `"correlation"`, `"partial correlation"`, `"covariance"` or `"precision"`, as in
            nilearn. Correlations are Fisher-z transformed.

    Returns:
        As given: `Subjects`, or an array, with `x` a float32 array `[n, r (r - 1) / 2]`.

    Raises:
        DataError: If `kind` is another one. nilearn's `"tangent"` is fitted on all subjects, test
            subjects included, so it is not allowed.

    Source:
        nilearn's `ConnectivityMeasure`, with its shrunk covariance (Ledoit and Wolf 2004).
    """
    from nilearn.connectome import ConnectivityMeasure  # slow to load

    kinds = ("correlation", "partial correlation", "covariance", "precision")
    if kind not in kinds:
        raise DataError(
            f"`kind` must be one of {', '.join(kinds)}, which are computed from one subject alone. "
            f"Received: kind={kind!r}."
        )
    x = subjects.x if isinstance(subjects, Subjects) else subjects
    measure = ConnectivityMeasure(kind=kind, vectorize=True, discard_diagonal=True)
    series = [own[:n].astype(float) for own, n in zip(x, lengths_of(x), strict=True)]
    values = measure.fit_transform(series)
    if "correlation" in kind:
        values = np.arctanh(np.clip(values, -1 + 1e-7, 1 - 1e-7))
    values = values.astype("float32")
    return subjects._replace(x=values) if isinstance(subjects, Subjects) else values


def lengths_of(x):
    """Return the number of time points of each subject without padding, an integer array `[n]`.

    Args:
        x: Array `[n, t, r]`, padded with zeros at the end.
    """
    there = (x != 0).any(axis=2)
    return x.shape[1] - np.argmax(there[:, ::-1], axis=1)


def _require_regions(series):
    widths = pd.Series({name: own.shape[1] for name, own in series.items()})
    usual = widths.mode().iloc[0]
    odd = widths[widths != usual]
    if len(odd):
        few = ", ".join(f"{name}: {series[name].shape[0]} x {n}" for name, n in odd.head(3).items())
        raise DataError(
            f"Every subject must have the same regions. Received: {usual} columns for most, other "
            f"numbers for {counted(odd.index, 'subject')} ({few}). "
            "Try transposing files whose rows are regions."
        )
    wrong = [name for name, own in series.items() if not np.isfinite(own).all()]
    if wrong:
        raise DataError(
            "Time series must be finite numbers. "
            f"Received: missing or infinite values of {counted(wrong, 'subject')}. "
            "Try interpolating those time points, or `where` without those subjects."
        )


def _flat(series):
    flat = {name: int(_is_flat(own).sum()) for name, own in series.items()}
    flat = {name: n for name, n in flat.items() if n}
    if any(n == series[name].shape[1] for name, n in flat.items()):
        gone = [name for name, n in flat.items() if n == series[name].shape[1]]
        raise DataError(
            "Time series must vary. "
            f"Received: constants in all regions of {counted(gone, 'subject')}."
        )
    return [f"regions that do not vary, of {counted(flat, 'subject')}"] if flat else []


def _is_flat(series):
    return np.ptp(series, axis=0) <= FLAT * np.abs(series).max(axis=0)


def _n_time(length, lengths):
    if length == "pad":
        return max(lengths)
    if length == "crop":
        return min(lengths)
    if isinstance(length, int) and not isinstance(length, bool) and length > 0:
        return length
    raise DataError(
        f"`length` must be 'pad', 'crop' or a number of time points. Received: length={length!r}."
    )


def _fitted(series, n_time, standardize):
    series = series[:n_time]
    if standardize:
        flat = _is_flat(series)
        scale = np.where(flat, 1.0, series.std(axis=0))
        series = np.where(flat, 0.0, (series - series.mean(axis=0)) / scale)
    return np.pad(series, [(0, n_time - len(series)), (0, 0)]).astype("float32")


def _unequal(lengths, n_time):
    if len(set(lengths)) == 1 and lengths[0] == n_time:
        return []
    padded, cropped = sum(n < n_time for n in lengths), sum(n > n_time for n in lengths)
    span = f"lengths {min(lengths)} to {max(lengths)}"
    return [f"{span}: {padded} padded with zeros, {cropped} cropped"]
