"""Tables of subjects, joined by id: features to train on, and labels."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from keras_spectral.errors import DataError
from keras_spectral.neuro.reading import (
    FREESURFER,
    UNNAMED,
    counted,
    feature_table,
    label_table,
    shown,
)
from keras_spectral.neuro.subjects import phenotype_table, require_join, with_target
from keras_spectral.neuro.targets import target_column


@dataclass(frozen=True)
class Joined:
    """Features and labels of the same subjects in the same order, that of the labels table.

    Attributes:
        features: Float64 DataFrame `[n, f]` of finite numbers, indexed by id. A column that several
            tables repeat with equal values is there once; with different values, its name is
            prefixed by that of its file: `train_FNC.x1`.
        labels: DataFrame of text with the same index. An empty field is missing (NaN).
        report: One line of text: what was found, joined and dropped, and why.
    """

    features: pd.DataFrame
    labels: pd.DataFrame
    report: str


def joined_tables(features, labels, id_column, join="exact"):
    """Read tables of features and one of labels, and join them by id.

    Tables that do not fit raise an error that says where. Only columns without information are
    dropped, and listed in the report: constant ones, repeats, and those without a name.

    Args:
        features: Paths of tables of numbers, one row per subject; also those that `asegstats2table`
            and `aparcstats2table` of FreeSurfer write.
        labels: Path of the table of targets and groups, one row per subject.
        id_column: Name of the column with the ids; `""` is the first column of each table. In a
            table without that name, a first column without a name holds the ids, and the first
            column of FreeSurfer's tables.
        join: `"exact"`: all tables must have the same ids. `"inner"`: keep the ids of all tables.

    Returns:
        A `Joined`.

    Raises:
        DataError: If a table cannot be read, ids do not match, or a feature is not a finite number.

    Example:
        >>> import tempfile
        >>> from keras_spectral.neuro.simulate import write_simulated_tables
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     features, labels = write_simulated_tables(folder, n_subjects=20)
        ...     joined = joined_tables([features], labels, id_column="id")
        >>> joined.report.partition("; joined ")[2]
        '20 subjects, 378 features; dropped nothing'
    """
    *paths, labels = _distinct_paths(features, labels)
    label = label_table(labels, id_column)
    return _joined(paths, id_column, labels.name, label, label, join, [])


def load_tables(features, phenotype, target, id_column="", *, where=None, join="exact"):
    """Load tables of features and the phenotype of the same subjects.

    Args:
        features: Path, or paths, of tables of numbers, see `joined_tables`.
        phenotype: Path of a table with one row per subject, or a DataFrame.
        target: Column of the phenotype to predict.
        id_column: Column of the ids; `""` is the first one of each table.
        where: Dictionary from column to the value, or values, of the subjects to keep.
        join: `"exact"`: all tables must have the same ids. `"inner"`: keep the ids of all tables.

    Returns:
        `Subjects` with `x` a float64 DataFrame `[n, f]` indexed by id.

    Raises:
        DataError: As `joined_tables` does; also if there is no such target, or it is a feature too.

    Example:
        >>> import tempfile
        >>> from keras_spectral.neuro.simulate import write_simulated_tables
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     features, phenotype = write_simulated_tables(folder, n_subjects=20)
        ...     x, y, _ = load_tables(features, phenotype, "diagnosis", where={"site": "A"})
        simulated_FNC.csv: 20 subjects x 378 features; simulated_labels.csv: 20 subjects;
        joined 10 subjects, 378 features; dropped 10 subjects with site 'B' (...);
        diagnosis: HC ..., SZ ...
        >>> x.shape, y.shape
        ((10, 378), (10,))
    """
    given = isinstance(phenotype, pd.DataFrame)
    paths = _distinct_paths(features, *([] if given else [phenotype]))
    paths, name = (paths, "phenotype") if given else (paths[:-1], paths[-1].name)
    all_subjects, _ = phenotype_table(phenotype, id_column)
    selected, dropped = phenotype_table(all_subjects, id_column, where)
    joined = _joined(paths, id_column, name, all_subjects, selected, join, dropped)
    target_column(joined, target)
    return with_target(joined.features, joined.labels, target, joined.report)


def _joined(paths, id_column, labels_name, all_subjects, selected, join, dropped):
    found = {path.name: feature_table(path, id_column) for path in paths}
    left_out = all_subjects.index.difference(selected.index)
    wanted = {name: table.drop(index=left_out, errors="ignore") for name, table in found.items()}
    ids, absent = _joined_ids(wanted | {labels_name: selected}, join)
    dropped += absent
    tables = {name: _numbers(name, table, dropped) for name, table in found.items()}
    values, odd = _side_by_side({name: t.loc[ids] for name, t in tables.items()}, dropped)
    _require_finite(values)
    values = _varying(values, dropped)
    report = _report(tables, labels_name, all_subjects, values, dropped) + odd
    return Joined(values, selected.loc[ids], report)


def _distinct_paths(features, *labels):
    features = [features] if isinstance(features, str | Path) else list(features)
    if not features:
        raise DataError("`features` must name at least one table. Received: none.")
    paths = [Path(path) for path in [*features, *labels]]
    twice = pd.Series([_stem(path) for path in paths]).duplicated(keep=False)
    if twice.any():
        raise DataError(
            "Every table must be a file with a name of its own. "
            f"Received: {shown(np.array(paths)[twice])}. "
            "Try each table once, under another name; labels in a table without features."
        )
    return paths


def _stem(path):
    # FreeSurfer's `lh.aparc.thickness` has no suffix.
    return path.name if FREESURFER.fullmatch(path.name) else path.stem


def _joined_ids(tables, join):
    require_join(join)
    *_, common = (table.index for table in tables.values())
    every = common
    for table in tables.values():
        common = common[common.isin(table.index)]
        every = every.union(table.index)
    absent = {name: every.difference(table.index) for name, table in tables.items()}
    absent = [f"{counted(ids, 'id')} not in {name}" for name, ids in absent.items() if len(ids)]
    if absent and (join == "exact" or common.empty):
        raise DataError(
            "All tables must have the same ids. "
            f"Received: {'; '.join(absent)}; {len(common)} in all tables.{_remedy(tables, common)}"
        )
    return common, absent


def _remedy(tables, common):
    bare = [{name.lstrip("0") for name in table.index} for table in tables.values()]
    if len(set.intersection(*bare)) > len(common):
        return (
            " More would match without leading zeros, which spreadsheets drop: "
            "try the original file, with ids of equal length."
        )
    inner = ' Try `join="inner"` (`--inner-join`) to keep those.'
    return inner if len(common) else " Try another id column."


def _numbers(name, table, dropped):
    without = [column for column in table if column.startswith(UNNAMED)]
    if without:
        dropped.append(f"{counted(without, 'column')} without a name in {name}")
    table = table.drop(columns=without)
    text = table.select_dtypes(exclude=["number", "bool"])
    if text.shape[1]:
        raise DataError(
            "Features must be numbers, with a decimal point. "
            f"Received: {name} with {counted(text, 'other column')}: "
            f"{_offender(text.iloc[:, 0])}. Try moving labels to the labels table."
        )
    if table.empty:
        raise DataError(f"A table must have features beside its ids. Received: {name}, with none.")
    return table


def _offender(column):
    wrong = column.notna() & pd.to_numeric(column, errors="coerce").isna()
    found = column[wrong if wrong.any() else column.notna()]
    return f"{column.name} of id {found.index[0]} is {found.iloc[0]!r}"


def _side_by_side(tables, dropped):
    tables = {name: table.astype(np.float64) for name, table in tables.items()}
    users = {}
    for name, table in tables.items():
        for column in table:
            users.setdefault(column, []).append(name)
    repeated = {column: [tables[name][column] for name in own] for column, own in users.items()}
    repeated = {column: own for column, own in repeated.items() if len(own) > 1}
    equal = [column for column, own in repeated.items() if all(c.equals(own[0]) for c in own)]
    if equal:
        dropped.append(f"repeats of {counted(equal, 'equal column')}")
    clash = [column for column in repeated if column not in equal]
    columns = []
    for name, table in tables.items():
        again = [column for column in equal if column in table and users[column][0] != name]
        renamed = {old: f"{_stem(Path(name))}.{old}" for old in clash}
        columns.append(table.drop(columns=again).rename(columns=renamed))
    return pd.concat(columns, axis=1), _odd({column: repeated[column] for column in clash})


def _odd(clash):
    """Return the note on columns that tables repeat with different values of a few subjects."""
    differ = {
        column: np.any([other != first for other in others], axis=0)
        for column, (first, *others) in clash.items()
    }
    few = {column: wrong for column, wrong in differ.items() if wrong.mean() <= 0.5}
    if not few:
        return ""
    ids = clash[next(iter(few))][0].index[np.any(list(few.values()), axis=0)]
    return f"; not equal in all tables for {counted(ids, 'id')}: {counted(few, 'column')}"


def _require_finite(values):
    wrong = ~np.isfinite(values)
    if wrong.any(axis=None):
        columns, ids = values.columns[wrong.any(axis=0)], values.index[wrong.any(axis=1)]
        raise DataError(
            "Features must be finite numbers. "
            f"Received: {int(wrong.to_numpy().sum())} missing or infinite, "
            f"in {counted(columns, 'column')} of {counted(ids, 'id')}. "
            "Try tables without those columns or subjects, or with imputed values."
        )


def _varying(values, dropped):
    constant = values.columns[(values == values.iloc[0]).all()]
    if len(constant) == values.shape[1]:
        raise DataError(
            "Features must differ between subjects. "
            f"Received: {counted(values.index, 'subject')}, equal in all {len(constant)} features."
        )
    if len(constant):
        dropped.append(counted(constant, "constant feature"))
    return values.drop(columns=constant)


def _report(tables, labels_name, label, values, dropped):
    found = [f"{name}: {len(t)} subjects x {t.shape[1]} features" for name, t in tables.items()]
    found.append(f"{labels_name}: {len(label)} subjects")
    joined = f"joined {len(values)} subjects, {values.shape[1]} features"
    return "; ".join([*found, joined, "dropped " + (", ".join(dropped) or "nothing")])
