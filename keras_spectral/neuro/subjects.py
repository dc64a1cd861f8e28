"""Who is studied: subjects of a phenotype table, and what was found on disk for each of them."""

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
"""What makes a part of a path a pattern."""


class Subjects(NamedTuple):
    """What every loader returns: `x, y, phenotype`, of the same subjects in the same order.

    Attributes:
        x: What a model reads, one example per subject; each loader says which shape.
        y: Integer array `[n]`: the classes of the target, numbered in the order of their names.
        phenotype: DataFrame of text indexed by id; an empty field is missing. Its `attrs` hold
            `"target"`, `"classes"` (their names) and `"report"` (the line that was printed).
    """

    x: Any
    y: Any
    phenotype: pd.DataFrame


def phenotype_table(source, id_column, where=None):
    """Read the phenotype, and keep the rows that are asked for.

    Args:
        source: Path of a CSV or TSV file with one row per subject, or such a DataFrame, indexed by
            id or with the id column.
        id_column: Name of the column with the ids; `""` is the first one.
        where: Dictionary from column to the value, or the values, of the rows to keep.

    Returns:
        The tuple `(phenotype, dropped)`: DataFrame of text indexed by id, and a list of phrases
        that say which rows were dropped.

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

    A file belongs to the subject whose id is a part of its name, between marks such as `_` or `-`;
    a name that begins with `sub-` names its subject there. Leading zeros do not count, unless
    subjects differ by them.

    Args:
        ids: Ids of subjects, text.
        names: Names of files.
        pattern: Regular expression whose first group is the id in a name, or `None`.

    Returns:
        Dictionary from the ids that have a file to the place of its name in `names`.

    Raises:
        DataError: If a subject has several files, or a file fits several subjects.

    Example:
        >>> found_for(["50272", "50273"], ["UM_1_0050273_rois_aal.1D"])
        {'50273': 0}
    """
    known = {_parts(name): name for name in ids}
    if len(known) < len(set(ids)):  # they differ by zeros, or by the marks between their parts
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
    for place, own in enumerate(matches):
        for subject in own:
            found.setdefault(subject, []).append(place)
    twice = {subject: places for subject, places in found.items() if len(places) > 1}
    if twice:
        subject, places = next(iter(twice.items()))
        raise DataError(
            "Every subject must have one file. "
            f"Received: {counted(twice, 'subject')} with several, as "
            f"{shown(names[k] for k in places)} of {subject}. Try a pattern of files that takes "
            "one session of each, such as 'folder/*_ses-1_*'."
        )
    return {subject: found[subject][0] for subject in ids if subject in found}


def matched(everybody, where, names, join, pattern):
    """Choose subjects, and find the data of each by its name.

    Args:
        everybody: DataFrame of text indexed by id, as `phenotype_table` returns it.
        where: As in `phenotype_table`.
        names: Names of files, or ids of the parts of one file.
        join: As in `joined`. Data of subjects whom `where` leaves out is not missing a subject.
        pattern: As in `found_for`.

    Returns:
        The tuple `(phenotype, places, dropped)`: the rows of subjects with data, a list with the
        place of each one's data in `names`, and a list of phrases that say who was dropped.

    Raises:
        DataError: As `phenotype_table`, `found_for` and `joined` do.
    """
    kept, dropped = phenotype_table(everybody, "", where)
    places = found_for(list(everybody.index), names, pattern)
    used = set(places.values())
    unused = [name for place, name in enumerate(names) if place not in used]
    kept = joined(kept, places, unused, join, dropped)
    return kept, [places[subject] for subject in kept.index], dropped


def joined(phenotype, found, unused, join, dropped):
    """Keep the subjects of whom something was found, or complain of the others.

    Args:
        phenotype: DataFrame indexed by id.
        found: Dictionary from id to what was found.
        unused: Names of what was found of no subject of the phenotype.
        join: `"exact"`: each side must have what the other has. `"inner"`: keep what both have.
        dropped: List of phrases, to which is added what is dropped here.

    Returns:
        The rows of `phenotype` of whom something was found.

    Raises:
        DataError: If something is missing and `join` is exact, or nothing is left.
    """
    require_join(join)
    without = [subject for subject in phenotype.index if subject not in found]
    missing = [f"{_number(without)} without data ({shown(without)})"] if without else []
    if unused:
        missing.append(f"data of nobody in the phenotype: {shown(unused)}")
    if missing and (join == "exact" or not found):
        inner = ' Try `join="inner"` (`--inner-join`) to keep those.' if found else ""
        raise DataError(
            "Phenotype and data must be of the same subjects. "
            f"Received: {'; '.join(missing)}; {len(found)} in both.{inner or _names(unused)}"
        )
    dropped += missing
    return phenotype.loc[[subject for subject in phenotype.index if subject in found]]


def require_join(join):
    """Check that it is known what to do with what only one side has.

    Args:
        join: What a loader was given.

    Raises:
        DataError: If it is neither `"exact"` nor `"inner"`.
    """
    if join not in ("exact", "inner"):
        raise DataError(f"`join` must be 'exact' or 'inner'. Received: join={join!r}.")


def with_target(x, phenotype, target, report):
    """Return what a loader found, with the target as classes, and print its report.

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
        source: Folder, searched with its folders within; or a path with `*`, `?` or `**`.
        suffixes: Endings of the names to take from a folder, in lower case.

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
        raise DataError(f"Every id must stand in one row only. Received: {counted(twice, 'id')}.")
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
    if not unused:
        return ""
    return " Try `pattern`, a regular expression whose first group is the id in a file's name."


def _require_column(table, column, argument):
    if column not in table:
        raise DataError(
            f"`{argument}` must name a column of the phenotype. Received: {column!r}; "
            f"the columns are {shown(table)}.{suggestion(column, table)}"
        )
