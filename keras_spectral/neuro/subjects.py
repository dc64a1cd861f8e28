"""Subjects of a phenotype table, and the files of each of them."""

import itertools
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from keras_spectral.errors import DataError
from keras_spectral.neuro.reading import counted, label_table, shown, suggestion
from keras_spectral.neuro.targets import target_classes

GLOB = re.compile(r"[*?\[]")
"""Characters that make a part of a path a pattern."""


class Subjects(NamedTuple):
    """The result of every loader: `x, y, phenotype` of the same subjects in the same order.

    Attributes:
        x: Input of a model, one example per subject; its shape is given by each loader.
        y: Integer array `[n]`: the classes of the target, numbered in the order of their names.
        phenotype: DataFrame of text indexed by id; an empty field is missing. Its `attrs` hold
            `"target"`, `"classes"` (their names) and `"report"` (the printed line).
    """

    x: Any
    y: Any
    phenotype: pd.DataFrame


def phenotype_table(source, id_column, where=None):
    """Read the phenotype, and select rows.

    Args:
        source: Path of a CSV or TSV file with one row per subject, or such a DataFrame, indexed by
            id or with the id column.
        id_column: Name of the column with the ids; `""` is the first one.
        where: Dictionary from column to the value, or the values, of the rows to select.

    Returns:
        The tuple `(phenotype, dropped)`: DataFrame of text indexed by id, and a list of texts that
        name the dropped rows.

    Raises:
        DataError: If it cannot be read, a column of `where` is absent, or no row is left.

    Example:
        >>> table = pd.DataFrame({"id": ["a", "b"], "group": ["Control", "Disenrolled"]})
        >>> phenotype_table(table, "id", where={"group": ["Control", "Patient"]})[1]
        ["1 subject with group 'Disenrolled' (b)"]
    """
    table = _text(source, id_column) if isinstance(source, pd.DataFrame) else None
    table = label_table(source, id_column) if table is None else table
    dropped = []
    for column, values in (where or {}).items():
        _require_column(table, column, "where")
        wanted = [str(value) for value in ([values] if np.isscalar(values) else values)]
        for value in table[column].unique():
            if value not in wanted:
                gone = table.index[
                    table[column].isna() if pd.isna(value) else table[column] == value
                ]
                name = "no label" if pd.isna(value) else repr(str(value))
                dropped.append(f"{_number(gone)} with {column} {name} ({shown(gone)})")
        table = table[table[column].isin(wanted)]
    if table.empty:
        raise DataError(
            "`where` must keep some subjects. "
            f"Received: {where}, which drops all: {'; '.join(dropped)}."
        )
    return table, dropped


def found_for(ids, names, pattern=None):
    """Match files to subjects by the ids in their names.

    A file belongs to the subject whose id is a part of its name, between separators such as `_` or
    `-`; in a name that begins with `sub-`, the id follows that. Leading zeros are ignored, unless
    ids differ only by them.

    Args:
        ids: Ids of subjects, text.
        names: Names of files.
        pattern: Regular expression whose first group is the id in a name, or `None`.

    Returns:
        Dictionary from each id that has a file to the index of the file in `names`.

    Raises:
        DataError: If a subject has several files, or a file fits several subjects.

    Example:
        >>> found_for(["50272", "50273"], ["UM_1_0050273_rois_aal.1D"])
        {'50273': 0}
    """
    known = {_parts(name): name for name in ids}
    if len(known) < len(set(ids)):  # ids differ only by zeros or separators
        known = {(name,): name for name in ids}
    matches = [_matches(name, known, pattern) for name in names]
    several = [f"{names[k]} ({', '.join(own)})" for k, own in enumerate(matches) if len(own) > 1]
    if several:
        raise DataError(
            "Every file must name one subject. "
            f"Received: {counted(several, 'file')} that fit several. Try `pattern`, a regular "
            r"expression whose first group is the id, such as r'_(\d+)_'."
        )
    found = {}
    for index, own in enumerate(matches):
        for subject in own:
            found.setdefault(subject, []).append(index)
    twice = {subject: indices for subject, indices in found.items() if len(indices) > 1}
    if twice:
        subject, indices = next(iter(twice.items()))
        raise DataError(
            "Every subject must have one file. "
            f"Received: {counted(twice, 'subject')} with several, as "
            f"{shown(names[k] for k in indices)} of {subject}. Try a pattern of files that takes "
            "one session of each, such as 'folder/*_ses-1_*'."
        )
    return {subject: found[subject][0] for subject in ids if subject in found}


def matched(all_subjects, where, names, join, pattern):
    """Select subjects, and find the data of each by its name.

    Args:
        all_subjects: DataFrame of text indexed by id, as `phenotype_table` returns it.
        where: As in `phenotype_table`.
        names: Names of files, or ids of the parts of one file.
        join: As in `joined`. Data of subjects that `where` excludes are not an error.
        pattern: As in `found_for`.

    Returns:
        The tuple `(phenotype, indices, dropped)`: the rows of subjects with data, a list with the
        index of their data in `names`, and a list of texts that name the dropped subjects.

    Raises:
        DataError: As `phenotype_table`, `found_for` and `joined` do.
    """
    selected, dropped = phenotype_table(all_subjects, "", where)
    indices = found_for(list(all_subjects.index), names, pattern)
    used = set(indices.values())
    unused = [name for index, name in enumerate(names) if index not in used]
    selected = joined(selected, indices, unused, join, dropped)
    return selected, [indices[subject] for subject in selected.index], dropped


def joined(phenotype, found, unused, join, dropped):
    """Return the subjects for which data were found, and raise or report the others.

    Args:
        phenotype: DataFrame indexed by id.
        found: Dictionary from id to its data.
        unused: Names of data that belong to no subject of the phenotype.
        join: `"exact"`: phenotype and data must be of the same subjects. `"inner"`: keep the
            subjects that both have.
        dropped: List of texts, to which those of subjects dropped here are appended.

    Returns:
        The rows of `phenotype` with data.

    Raises:
        DataError: If subjects differ and `join` is exact, or no subject has data.
    """
    require_join(join)
    without = [subject for subject in phenotype.index if subject not in found]
    missing = [f"{_number(without)} without data ({shown(without)})"] if without else []
    if unused:
        missing.append(f"data without a subject in the phenotype: {shown(unused)}")
    if missing and (join == "exact" or not found):
        inner = ' Try `join="inner"` (`--inner-join`) to keep those.' if found else ""
        raise DataError(
            "Phenotype and data must be of the same subjects. "
            f"Received: {'; '.join(missing)}; {len(found)} in both.{inner or _names(unused)}"
        )
    dropped += missing
    return phenotype.loc[[subject for subject in phenotype.index if subject in found]]


def require_join(join):
    """Check the argument `join` of a loader.

    Args:
        join: The argument.

    Raises:
        DataError: If it is neither `"exact"` nor `"inner"`.
    """
    if join not in ("exact", "inner"):
        raise DataError(f"`join` must be 'exact' or 'inner'. Received: join={join!r}.")


def with_target(x, phenotype, target, report):
    """Return the data of a loader with the target as classes, and print its report.

    Args:
        x: One example per subject.
        phenotype: DataFrame of the same subjects, indexed by id.
        target: Name of the column to predict.
        report: One line of text.

    Returns:
        `Subjects`.

    Raises:
        DataError: If there is no such column, a label is missing, or there are too few classes.
    """
    _require_column(phenotype, target, "target")
    y, classes = target_classes(phenotype[target])
    counts = np.bincount(y)
    sizes = ", ".join(f"{name} {count}" for name, count in zip(classes, counts, strict=True))
    report = f"{report}; {target}: {sizes}"
    phenotype = phenotype.copy()
    phenotype.attrs = {"target": target, "classes": classes, "report": report}
    print(report)
    return Subjects(x, y, phenotype)


def files_of(source, suffixes):
    """List files.

    Args:
        source: Folder, searched recursively; or a path with `*`, `?` or `**`.
        suffixes: Suffixes of the names to take from a folder, in lower case.

    Returns:
        Sorted list of paths.

    Raises:
        DataError: If there is none.
    """
    source = Path(source)
    if source.is_dir():
        found = [f for f in source.rglob("*") if f.is_file() and f.name.lower().endswith(suffixes)]
    else:
        fixed = list(itertools.takewhile(lambda part: not GLOB.search(part), source.parts))
        rest = source.parts[len(fixed) :]
        found = [f for f in Path(*fixed).glob(str(Path(*rest))) if f.is_file()] if rest else []
    found = sorted(f for f in found if not f.name.startswith("."))
    if not found:
        raise DataError(
            "Data must be a folder of files, or a path with `*`. "
            f"Received: {source}, with no file that ends in {', '.join(suffixes)}."
        )
    return found


def _text(table, id_column):
    table = table.copy()
    if id_column in table:
        table = table.set_index(id_column)
    elif id_column == "" and isinstance(table.index, pd.RangeIndex):
        table = table.set_index(table.columns[0])
    table.index = pd.Index([str(name).strip() for name in table.index], name="id")
    twice = table.index[table.index.duplicated()]
    if len(twice):
        raise DataError(f"Every id must be in one row only. Received: {counted(twice, 'id')}.")
    return table.map(lambda value: np.nan if pd.isna(value) else str(value).strip())


def _parts(name):
    return tuple(part.lstrip("0") or "0" for part in re.findall(r"[A-Za-z0-9]+", name))


def _matches(name, known, pattern):
    if pattern is not None:
        match = re.search(pattern, name)
        return [known[_key(match[1], known)]] if match and _key(match[1], known) in known else []
    parts = _parts(name)
    if parts[:1] == ("sub",):
        parts = parts[:2]
    if (name,) in known:
        return [name]
    spans = {parts[i:j] for i in range(len(parts)) for j in range(i + 1, len(parts) + 1)}
    exact = {(part,) for part in re.split(r"[^A-Za-z0-9]+", name)}
    return sorted({known[span] for span in spans | exact if span in known})


def _key(text, known):
    return (text,) if (text,) in known else _parts(text)


def _number(subjects):
    return f"{len(subjects)} subject{'' if len(subjects) == 1 else 's'}"


def _names(unused):
    advice = " Try `pattern`, a regular expression whose first group is the id in a file's name."
    return advice if unused else ""


def _require_column(table, column, argument):
    if column not in table:
        raise DataError(
            f"`{argument}` must name a column of the phenotype. Received: {column!r}; "
            f"the columns are {shown(table)}.{suggestion(column, table)}"
        )
