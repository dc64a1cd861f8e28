"""The table of `coverage`, as text for a terminal."""

import textwrap

WIDTH = 100

WEIGHT, SHAPE, PARAMETERS = 20, 16, 11
"""At most so many characters wide are these columns; what is longer has a line of its own."""


def listing(table):
    """Return the table of `coverage` as text: each layer, its weights, and totals with reasons.

    Args:
        table: DataFrame made by `coverage`.

    Returns:
        Lines of at most `WIDTH` characters, unless a single name is longer. Layers and weights are
        named whole.
    """
    if not len(table):
        return "No weights."
    notes = _notes(table)
    lines = ["layer (type)", _line("weight", "shape", "parameters", "captured by")]
    for (path, layer_type), weights in table.groupby(["layer", "layer_type"], sort=False):
        lines += ["", *_folded(f"{path} ({layer_type})")]
        lines += [_weight_line(weight, notes) for weight in weights.itertuples()]
    lines += ["", *_totals(table[table["captured"]], table, "Captured", notes)]
    lines += _totals(table[~table["captured"]], table, "Not captured", notes)
    return "\n".join(lines)


def _notes(table):
    """Return a number for each reason, with the rule, in the order in which they come."""
    reasons = table[table["reason"] != ""][["how", "reason"]].drop_duplicates()
    return {key: number for number, key in enumerate(reasons.itertuples(index=False, name=None), 1)}


def _weight_line(weight, notes):
    shape = "×".join(map(str, weight.shape)) or "scalar"
    note = notes.get((weight.how, weight.reason))
    how = (weight.how or "no") + (f" [{note}]" if note else "")
    return _line(weight.weight, shape, f"{weight.parameters:,}", how)


def _line(weight, shape, parameters, how):
    text, column = "  ", 2
    for cell, width in ((weight, WEIGHT), (shape, SHAPE)):
        column += width + 2
        text += cell
        room = column - len(text.rpartition("\n")[2])
        text += " " * room if room >= 2 else "\n" + " " * column
    return f"{text}{parameters:>{PARAMETERS}}  {how}"


def _folded(path):
    """Return the lines of a path: one, unless it is wider than the page."""
    lines = [""]
    for part in path.replace("/", "/\n").split("\n"):
        if lines[-1].strip() and len(lines[-1]) + len(part) > WIDTH:
            lines.append("    ")
        lines[-1] += part
    return lines


def _totals(part, table, title, notes):
    if not len(part):
        return []
    parameters, of = part["parameters"].sum(), table["parameters"].sum()
    share = f" ({100 * parameters / of:.1f} %)" if of else ""
    lines = [
        f"{title}: {len(part):,} of {len(table):,} weights, "
        f"{parameters:,} of {of:,} parameters{share}"
    ]
    for (how, reason), weights in part.groupby(["how", "reason"], sort=False):
        note = notes.get((how, reason))
        why = " ".join(filter(None, [how, f"[{note}]" if note else "", reason]))
        many = "weights" if len(weights) > 1 else "weight "
        count = f"{len(weights):>7,} {many} {weights['parameters'].sum():>13,} parameters  "
        lines += textwrap.wrap(why, WIDTH, initial_indent=count, subsequent_indent=" " * len(count))
    return lines
