"""Targets and groups from a table of labels."""

import re

import numpy as np
import pandas as pd

from keras_spectral.errors import DataError
from keras_spectral.neuro.reading import counted, shown, suggestion

MAX_CLASSES = 20
CROSS = " x "
"""Separator of the parts of an intersection of groups."""


def target_column(joined, name):
    """Return the column to predict.

    Args:
        joined: A `Joined`.
        name: Name of a column of the labels table.

    Returns:
        Series of text indexed by id.

    Raises:
        DataError: If there is no such column, or a feature has the same name, so that the target
            would be an input of the model.
    """
    _require_columns(joined.labels, [name], "target")
    leaks = [column for column in joined.features if column == name or column.endswith(f".{name}")]
    if leaks:
        raise DataError(
            "The target must not be a feature too: it would be an input of the model. "
            f"Received: target={name!r}, features with {shown(leaks)}. "
            "Try a table of features without that column."
        )
    return joined.labels[name]


def target_classes(labels_column):
    """Return the classes of a target as integers.

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


def group_columns(labels, names, argument="groups"):
    """Return the columns of labels whose groups are compared.

    A name is that of a column, or it describes how groups are made from columns:

    - `"age:3"`: three groups of about equal size, split at quantiles, such as `age 18 to 24`.
    - `"age<30"`: the two groups `age < 30` and `age ≥ 30`.
    - `"diagnosis x sex"`: intersections, such as `SZ, F`; a part is a column or one of the above.

    Args:
        labels: DataFrame of labels indexed by id.
        names: Names, as above. A column of just that name is taken first.
        argument: Name of the argument in error messages.

    Returns:
        DataFrame with a column per name, for `fit(groups=…)`. A missing label belongs to no group,
        an intersection is missing where any part is. Intervals go from the lowest to the highest
        number in a group, with equally many digits, so that labels sort by size.

    Raises:
        DataError: If there is no such column, it holds no label at all or nearly as many as
            subjects, or its numbers cannot be split so.

    Example:
        >>> import pandas as pd
        >>> labels = pd.DataFrame({"sex": list("FMFM"), "age": ["9", "18", "30", "41"]})
        >>> group_columns(labels, ["age:2", "sex x age<30"])
                    age:2 sex x age<30
        0  age 09 to 18  F, age < 30
        1  age 09 to 18  M, age < 30
        2  age 30 to 41  F, age ≥ 30
        3  age 30 to 41  M, age ≥ 30
    """
    names = [names] if isinstance(names, str) else list(dict.fromkeys(names))
    parts = [part for name in names for part in _parts(labels, name)]
    _require_columns(labels, [_source(labels, part)[0] for part in parts], argument)
    groups = {name: _groups(labels, name) for name in names}
    empty = [name for name, column in groups.items() if column.isna().all()]
    if empty:
        raise DataError(
            "`groups` must be columns that hold labels. "
            f"Received: {shown(empty)}, without any label. Try another column."
        )
    for name, column in groups.items():
        _require_shared_labels(name, column)
    return pd.DataFrame(groups, index=labels.index, columns=names)


def require_enough_per_class(y, classes, folds):
    """Check that every fold of a stratified cross-validation can have examples of every class.

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
            f"Try folds={max(2, counts.min())}, or the subjects of other classes alone (`--where`)."
        )


def _parts(labels, name):
    return [name] if name in labels else str(name).split(CROSS)


def _source(labels, part):
    """Return the tuple `(column, sign, number)` of a part of a group name."""
    if part in labels:
        return part, None, None
    split = re.fullmatch(r"(.+?)\s*(?:(:)\s*(\d+)|(<)\s*(-?\d+(?:\.\d+)?))", str(part))
    if split is None:
        return part, None, None
    column, *rest = split.groups()
    return column, *(text for text in rest if text is not None)


def _groups(labels, name):
    parts = _parts(labels, name)
    first, *others = [_part(labels, part) for part in parts]
    for other in others:
        # `+` with a missing label is missing.
        first = _texts(first) + ", " + _texts(other)
    return first


def _texts(column):
    text = column.map(str, na_action="ignore").astype(object)
    return text.where(text != "", np.nan)


def _part(labels, part):
    column, sign, number = _source(labels, part)
    if sign is None or labels[column].isna().all():
        return labels[column]
    values = _numeric(labels[column], part)
    return _bins(values, part, int(number)) if sign == ":" else _sides(values, part, number)


def _numeric(column, part):
    text = column.notna() & (column.astype(str).str.strip() != "")
    values = pd.to_numeric(column.where(text), errors="coerce").astype(float)
    wrong = column[text & ~np.isfinite(values)]
    if len(wrong):
        raise DataError(
            "`groups` must split a column of numbers. "
            f"Received: {part!r}, where {column.name} of id {wrong.index[0]} is "
            f"{str(wrong.iloc[0])!r}, not a number ({len(wrong)} of {len(column)}). "
            f"Try {column.name!r}, whose labels are groups as they stand."
        )
    return values


def _bins(values, part, number):
    different = values.nunique()
    codes = pd.Series(np.nan, values.index)
    if 2 <= number <= different:
        codes = pd.qcut(values, number, labels=False, duplicates="drop")
    if codes.nunique() != max(number, 2):
        raise DataError(
            "`groups` must split a column into at least 2 groups, without splitting equal numbers. "
            f"Received: {part!r}, with {different} different number{'' if different == 1 else 's'} "
            f"in {values.count()} subjects. Try fewer groups, another column, or a threshold such "
            f"as '{values.name}<{_text(values.mean())}'."
        )
    lowest, highest = values.groupby(codes).min(), values.groupby(codes).max()
    texts = _number_texts([*lowest, *highest])
    ends = [dict.fromkeys((texts[k], texts[number + k])) for k in range(number)]
    names = {k: f"{values.name} {' to '.join(both)}" for k, both in enumerate(ends)}
    return codes.map(names).astype(object)


def _sides(values, part, number):
    below = values < float(number)
    if not below.any() or not (values >= float(number)).any():
        raise DataError(
            "`groups` must have subjects on both sides of a threshold. "
            f"Received: {part!r}, where {values.name} is {_text(values.min())} to "
            f"{_text(values.max())}. Try a threshold between those."
        )
    sides = np.where(below, f"{values.name} < {number}", f"{values.name} ≥ {number}")
    return pd.Series(sides, values.index, dtype=object).where(values.notna())


def _number_texts(values):
    """Return numbers as texts of equal width, with enough decimals to distinguish them."""
    for digits in range(18):
        texts = [f"{value:.{digits}f}" for value in values]
        if len(set(texts)) == len(set(values)) and all(map(_close, texts, values)):
            break
    width = max(len(text) for text in texts)
    return [text.zfill(width) for text in texts]


def _close(text, value):
    return abs(float(text) - value) <= 1e-3 * abs(value)


def _text(value):
    return f"{value:.6g}"


def _require_shared_labels(name, column):
    different, labelled = column.nunique(), int(column.count())
    if different > MAX_CLASSES and 2 * different > labelled:
        numbers = pd.to_numeric(column, errors="coerce").notna().sum() == labelled
        bins = f"{f'{name}:3'!r}, three groups of about equal size"
        raise DataError(
            "`groups` must be columns with labels that several subjects share. "
            f"Received: {name!r}, with {different} different labels of {labelled} subjects. "
            f"Try {bins if numbers else 'another column'}."
        )


def _require_columns(labels, names, argument):
    unknown = [name for name in names if name not in labels]
    if unknown:
        raise DataError(
            f"`{argument}` must name a column of the labels table. "
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
