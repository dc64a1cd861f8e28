"""Tables of subjects, joined by id: features to learn from, labels beside them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from keras_spectral.errors import DataError
from keras_spectral.neuro.reading import UNNAMED, counted, feature_table, label_table, shown


@dataclass(frozen=True)
class Joined:
    """Features and labels of the same subjects in the same order, that of the labels table.

    Attributes:
        features: Float64 DataFrame `[n, f]` of finite numbers, indexed by id. A column name that
            several tables use has the name of its file before it: `train_FNC.x1`.
        labels: DataFrame of text with the same index. An empty field is missing (NaN).
        report: One line: what was found, joined and dropped, and why.
    """

    features: pd.DataFrame
    labels: pd.DataFrame
    report: str


def joined_tables(features, labels, id_column, join="exact"):
    """Read tables of features and one of labels, and join them by id.

    Nothing is guessed: what does not fit is an error that says where. Only columns that can teach
    nothing are dropped, the constant ones and those without a name, and the report says so.

    Args:
        features: Paths of tables of numbers, one row per subject.
        labels: Path of the table of targets and groups, one row per subject.
        id_column: Name of the column with the ids; `""` is the first column of each table. In a
            table without that name, a first column without a name holds the ids.
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
    found = {path.name: feature_table(path, id_column) for path in paths}
    label = label_table(labels, id_column)
    ids, dropped = _joined_ids(found | {labels.name: label}, join)
    tables = {name: _numbers(name, table, dropped) for name, table in found.items()}
    values = _side_by_side(tables, ids)
    _require_finite(values)
    values = _varying(values, dropped)
    return Joined(values, label.loc[ids], _report(tables, labels.name, label, values, dropped))


def _distinct_paths(features, labels):
    features = [features] if isinstance(features, str | Path) else list(features)
    if not features:
        raise DataError("`features` must name at least one table. Received: none.")
    paths = [Path(path) for path in [*features, labels]]
    twice = pd.Series([path.stem for path in paths]).duplicated(keep=False)
    if twice.any():
        raise DataError(
            "Every table must be a file with a name of its own. "
            f"Received: {shown(np.array(paths)[twice])}. "
            "Try each table once, under another name; labels in a table without features."
        )
    return paths


def _joined_ids(tables, join):
    if join not in ("exact", "inner"):
        raise DataError(f"`join` must be 'exact' or 'inner'. Received: join={join!r}.")
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


def _side_by_side(tables, ids):
    names = [column for table in tables.values() for column in table]
    clash = pd.Index(names)[pd.Index(names).duplicated()]
    columns = [
        table.loc[ids].rename(columns={old: f"{Path(name).stem}.{old}" for old in clash})
        for name, table in tables.items()
    ]
    return pd.concat(columns, axis=1).astype(np.float64)


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
