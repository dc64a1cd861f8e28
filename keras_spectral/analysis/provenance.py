"""Reading the provenance of a log, whether of one run or of several."""

HIDDEN = ("runs", "coverage", "scores")
"""Entries that reports show in tables of their own."""


def declared(provenance, key):
    """Yield an entry of the provenance, from the top and from every run below it.

    Args:
        provenance: `log.provenance`; that of several runs is under `runs`.
        key: Name of the entry.

    Yields:
        Values, that of the top level first.
    """
    for _, level in levels(provenance):
        if level.get(key) is not None:
            yield level[key]


def records(provenance, key):
    """Return an entry that is a list of records, joined over all runs.

    Args:
        provenance: `log.provenance`.
        key: Name of the entry.

    Returns:
        List of dictionaries. If runs differ, each has an entry `run`; else they are listed once.
    """
    found = [(run, level[key]) for run, level in levels(provenance) if level.get(key)]
    if all(entry == found[0][1] for _, entry in found):
        return list(found[0][1]) if found else []
    return [
        ({"run": run} if run else {}) | dict(record) for run, entry in found for record in entry
    ]


def facts(provenance):
    """Return the provenance as pairs of dotted names and plain values, without tables and runs.

    Args:
        provenance: `log.provenance`. Entries that all runs share follow those of the top level.

    Returns:
        List of `(name, value)` in order.
    """
    top, *runs = [dict(_flat(level)) for _, level in levels(provenance)]
    runs = [level for level in runs if level]
    shared = set.intersection(*(set(level.items()) for level in runs)) if runs else set()
    return [*top.items(), *(item for item in (runs[0].items() if runs else ()) if item in shared)]


def levels(provenance, run=""):
    """Yield the provenance itself, then that of every run below it.

    Args:
        provenance: A dictionary.
        run: Name of the run it belongs to.

    Yields:
        Pairs of a run's name, empty at the top, and a dictionary.
    """
    yield run, provenance
    runs = provenance.get("runs")
    for name, nested in runs.items() if isinstance(runs, dict) else ():
        if isinstance(nested, dict):
            yield from levels(nested, str(name))


def _flat(level, prefix=""):
    for name, value in level.items():
        if (not prefix and name in HIDDEN) or value in (None, "", [], {}):
            continue
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value if isinstance(value, str) else _text(value)


def _text(value):
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
