"""What to predict and whom to compare, out of a table of labels."""

import numpy as np

from keras_spectral.errors import DataError
from keras_spectral.neuro.reading import counted, shown, suggestion

MAX_CLASSES = 20


def target_column(joined, name):
    """The column to predict, by its name.

    Args:
        joined: A `Joined`.
        name: Name of a column of the labels table.

    Returns:
        Series of text indexed by id.

    Raises:
        DataError: If there is no such column, or a feature has the same name: the model would read
            the answer.
    """
    _require_columns(joined.labels, [name], "target")
    leaks = [column for column in joined.features if column == name or column.endswith(f".{name}")]
    if leaks:
        raise DataError(
            "The target must not be a feature too, or the model reads the answer. "
            f"Received: target={name!r}, features with {shown(leaks)}. "
            "Try a table of features without that column."
        )
    return joined.labels[name]


def target_classes(labels_column):
    """The classes of a target as integers.

    Args:
        labels_column: Series of `n` labels indexed by id, see `target_column`.

    Returns:
        The tuple `(y, classes)`: an integer array `[n]`, and the class names as text, sorted, so
        that `classes[y[row]]` is the label of a row.

    Raises:
        DataError: If a label is missing, there is only one class, or there are more than 20.

    Example:
        >>> import pandas as pd
        >>> target_classes(pd.Series(["SZ", "HC", "SZ"]))
        (array([1, 0, 1]), ('HC', 'SZ'))
    """
    name = labels_column.name
    missing = labels_column.index[labels_column.isna()]
    if len(missing):
        raise DataError(
            "The target must have a label for every subject. "
            f"Received: {name!r}, without one for {counted(missing, 'id')}. "
            "Try tables without those subjects."
        )
    classes, y = np.unique(labels_column.astype(str).to_numpy(dtype=str), return_inverse=True)
    _require_few_classes(name, classes)
    return y, tuple(str(label) for label in classes)


def group_columns(labels, names):
    """The columns of labels whose groups are to be compared.

    Args:
        labels: DataFrame of labels indexed by id.
        names: Names of columns.

    Returns:
        DataFrame with those columns, for `fit(groups=…)`. A missing label belongs to no group.

    Raises:
        DataError: If there is no such column, or it holds no label at all.
    """
    names = [names] if isinstance(names, str) else list(dict.fromkeys(names))
    _require_columns(labels, names, "groups")
    empty = [name for name in names if labels[name].isna().all()]
    if empty:
        raise DataError(
            "`groups` must be columns that hold labels. "
            f"Received: {shown(empty)}, without any label. Try another column."
        )
    return labels[names]


def require_enough_per_class(y, classes, folds):
    """Check that every fold of a stratified cross-validation can hold every class.

    Args:
        y: Integer array `[n]` of classes.
        classes: Names of the classes.
        folds: Number of folds, at least 2.

    Raises:
        DataError: If there are fewer than 2 folds, or a class has fewer examples than folds.

    Example:
        >>> require_enough_per_class([0, 0, 1, 1], ("HC", "SZ"), folds=2)
    """
    if folds < 2:
        raise DataError(f"`folds` must be at least 2. Received: folds={folds}. Try folds=5.")
    counts = np.bincount(y, minlength=len(classes))
    few = [f"{counts[label]} of {classes[label]!r}" for label in np.flatnonzero(counts < folds)]
    if few:
        raise DataError(
            "Every class must have at least as many examples as there are folds. "
            f"Received: folds={folds}, but {shown(few)}. "
            f"Try folds={max(2, counts.min())}, or tables without the subjects of such a class."
        )


def _require_columns(labels, names, argument):
    unknown = [name for name in names if name not in labels]
    if unknown:
        raise DataError(
            f"`{argument}` must name columns of the labels table. "
            f"Received: {shown(unknown)}; the columns are {shown(labels)}."
            + suggestion(unknown[0], labels)
        )


def _require_few_classes(name, classes):
    if len(classes) == 1:
        raise DataError(
            "The target must have at least two classes. "
            f"Received: {name!r}, where every label is {str(classes[0])!r}. Try another column."
        )
    if len(classes) > MAX_CLASSES:
        raise DataError(
            f"The target must have at most {MAX_CLASSES} classes. Received: {name!r} with "
            f"{counted(classes, 'different value')}, as a continuous column has. "
            "Try another column, or bins of this one."
        )
