"""The tables of a report, as plain data for its template."""

import json

import numpy as np
import pandas as pd

from keras_spectral.analysis.labels import SUMMARY_LABELS, shortened
from keras_spectral.analysis.provenance import declared, facts, records
from keras_spectral.summaries import NORMS


def full_tables(pairs):
    """Return every row of every comparison.

    Args:
        pairs: A `Pairs`.

    Returns:
        List of dictionaries with `columns` and `rows`.
    """
    return [shown(_long(table)) for table in pairs.tables]


def sizes_table(log):
    """Return how many examples of each group were in the recorded batches.

    Args:
        log: A `SpectralLog`.

    Returns:
        Dictionary with `columns` and `rows`.
    """
    batches = log.rows.drop_duplicates(["run", "epoch", "step", "group"])
    total = len(batches.drop_duplicates(["run", "epoch", "step"]))
    rows = []
    for group in log.groups:
        part = batches[batches["group"] == group]
        share = (part["n_examples"] / part["batch_size"]).mean()
        sizes = part["n_examples"]
        rows.append(
            {
                "group": group,
                "mean examples": sizes.mean(),
                "fewest": sizes.min(),
                "most": sizes.max(),
                "mean share": f"{100 * share:.0f} %",
                "recorded with it": f"{len(part):,} of {total:,}",
            }
        )
    return shown(pd.DataFrame(rows))


def coverage_table(log):
    """Return which weights were captured, in the first run that says so; `None` if none does."""
    entries = declared(log.provenance, "coverage")
    return _record_table(next((entry for entry in entries if entry), None))


def scores_table(log):
    """Return the scores of the network, or `None` if the log has none."""
    return _record_table(records(log.provenance, "scores"))


def facts_table(log):
    """Return versions and settings by name, without entries that have a table of their own."""
    return [(name, shortened(value, 300)) for name, value in facts(log.provenance)]


def provenance_json(log):
    """Return the whole provenance as indented JSON."""
    return json.dumps(log.provenance, indent=1, default=str, ensure_ascii=False)


def short_table(table):
    """Return the rows of a comparison as a reader wants them first.

    Args:
        table: DataFrame from `compare_groups`.
    """
    first, second = table[["group_a", "group_b"]].iloc[0]
    a, b = _tested(table, "a"), _tested(table, "b")
    return pd.DataFrame(
        {
            "layer": table["layer"],
            "weight": table["weight"],
            "quantity": table["quantity"],
            "measure": _measures(table),
            f"group {first}": a,
            f"group {second}": b,
            "higher": _higher(table, a - b),
            "z": table["z"],
            "p": table["p"],
            "adjusted p": table["p_adjusted"],
        }
    )


def _long(table):
    shown = table.drop(columns=["group_a", "group_b", "null"], errors="ignore")
    a, b = table[["group_a", "group_b"]].iloc[0]
    names = {
        "value_a": f"group {a}",
        "value_b": f"group {b}",
        "corrected_a": f"group {a}, size-corrected",
        "corrected_b": f"group {b}, size-corrected",
        "corrected_difference": "difference, size-corrected",
        "p_adjusted": "adjusted p",
        "n_a": f"mean n {a}",
        "n_b": f"mean n {b}",
        "n_steps": "steps",
        "n_skipped": "skipped",
        "n_runs": "runs",
        "n_permutations": "permutations",
        "summary": "measure",
    }
    return shown.assign(summary=shown["summary"].map(SUMMARY_LABELS)).rename(columns=names)


def _tested(table, end):
    return table[f"corrected_{end}"].where(table["summary"].isin(NORMS), table[f"value_{end}"])


def _measures(table):
    note = np.where(table["summary"].isin(NORMS), "*", "")
    return table["summary"].map(SUMMARY_LABELS) + note


def _higher(table, difference):
    # In comparison with permuted groups of these sizes, where these were recorded.
    difference = table["z"].fillna(difference)
    higher = table["group_a"].where(difference > 0, table["group_b"])
    return higher.where(difference != 0, "equal")


def relative_difference(table):
    """Return the differences of both groups relative to their sum.

    Args:
        table: DataFrame from `compare_groups`.
    """
    a, b = _tested(table, "a"), _tested(table, "b")
    return (a - b).abs() / (a.abs() + b.abs()).replace(0, np.nan)


def _record_table(found):
    return shown(pd.DataFrame(found)) if found else None


def shown(table):
    """Return a table as the template takes it.

    Args:
        table: DataFrame.

    Returns:
        Dictionary of `columns`, `rows` and `numeric`.
    """
    numeric = [table[name].dtype.kind in "iuf" for name in table]
    rows = [[_cell(value) for value in row] for row in table.itertuples(index=False, name=None)]
    return {
        "columns": list(zip(table.columns, numeric, strict=True)),
        "rows": rows,
        "numeric": numeric,
    }


def _cell(value):
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, float | np.floating):
        return "–" if np.isnan(value) else f"{value:.3g}"
    return "–" if value is None else str(value)
