"""Heat map of `z` by weight and step: where two groups differ more than permuted groups do."""

import textwrap

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from keras_spectral.analysis.compare import z_by_step
from keras_spectral.analysis.figures.panels import (
    TEXT_SIZE,
    TITLE_SIZE,
    legend_below,
    message_figure,
)
from keras_spectral.analysis.figures.styles import INK
from keras_spectral.analysis.labels import SUMMARY_LABELS, series_names, shortened
from keras_spectral.analysis.nulls import NO_PERMUTATIONS

NOTABLE = 1.96
MOST_TICKS = 10
NO_VALUE = "#dcdcdc"
MOST_MARKED_STEPS = 60
"""With more steps than this, cells are too narrow for marks."""
LETTERS_PER_INCH = 9.5
"""Characters of the title that fit in an inch, to wrap it at the width of the figure."""
COLOURS = "PuOr_r"
"""Source: Brewer, Hatchard and Harrower, "ColorBrewer in Print", CaGIS 30(1), 2003: a diverging
scheme that colour-blind readers can read."""


def z_map(log, a, b, summary="effective_rank", quantities=None, layers=None):
    """Return a heat map of `z` by weight and step: the difference `a - b` against permutations.

    `z` counts standard deviations of the permuted differences at the same step. A dot marks
    `|z| > 1.96`, which about 5 % of the cells show by chance: look for rows, not for single dots.

    Args:
        log: A `SpectralLog` with permutations; without them the figure holds only a message.
        a: Group label.
        b: Another group label.
        summary: Name of a summary; norms are size-corrected.
        quantities: Quantity or list of them; `None` takes all.
        layers: Layer path or list of them; `None` takes all.

    Returns:
        A matplotlib `Figure`.

    Raises:
        ComparisonError: As in `compare_groups`.
        LogError: As in `compare_groups`.

    Example:
        >>> z_map(log, "SZ", "HC")  # doctest: +SKIP
    """
    table = z_by_step(log, a, b, summary, quantities, layers)
    if table["z"].isna().all():
        return message_figure(f"No map of {a} against {b}:\n{NO_PERMUTATIONS}.")
    rows = table[["layer", "weight", "quantity"]].drop_duplicates()
    moments = table[["epoch", "step"]].drop_duplicates()
    z = table["z"].to_numpy().reshape(len(rows), len(moments))
    size = (min(9.0, 6.5 + 0.2 * len(moments)), 2.4 + 0.3 * len(rows))
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    axis = figure.subplots()
    _draw_cells(axis, z)
    _draw_marks(figure, axis, z)
    _draw_scale(figure, axis, a)
    _label_rows(axis, rows)
    _label_steps(axis, moments["step"].to_numpy())
    title = f"{a} − {b}: {SUMMARY_LABELS[summary]}{_only_quantity(rows)}, against permuted groups"
    title = textwrap.fill(title, int(LETTERS_PER_INCH * size[0]))
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, color=INK, weight="bold")
    return figure


def _draw_cells(axis, z):
    limit = float(max(3.0, np.ceil(np.nanquantile(np.abs(z), 0.98))))
    axis.set_facecolor(NO_VALUE)
    axis.imshow(
        np.ma.masked_invalid(z),
        cmap=COLOURS,
        vmin=-limit,
        vmax=limit,
        aspect="auto",
        interpolation="nearest",
    )
    axis.spines[:].set_visible(False)


def _draw_marks(figure, axis, z):
    handles = []
    if z.shape[1] <= MOST_MARKED_STEPS:
        row, column = np.nonzero(np.nan_to_num(np.abs(z)) > NOTABLE)
        style = {"marker": "o", "color": "white", "markeredgecolor": "black", "linestyle": ""}
        axis.plot(column, row, markersize=4.5, **style)
        label = "|z| > 1.96: about 5 % of the cells by chance"
        handles.append(Line2D([], [], markersize=4.5, label=label, **style))
    if np.isnan(z).any():
        handles.append(Patch(facecolor=NO_VALUE, label="no spread, or not recorded"))
    if handles:
        legend_below(figure, handles)


def _draw_scale(figure, axis, a):
    bar = figure.colorbar(axis.images[0], ax=axis, extend="both", extendfrac=0.03, pad=0.03)
    bar.set_label(f"z above 0:\nhigher in {shortened(a, 16)}", fontsize=TEXT_SIZE, color=INK)
    bar.ax.tick_params(labelsize=TEXT_SIZE, labelcolor=INK)
    bar.outline.set_visible(False)
    for level in (-NOTABLE, NOTABLE):
        bar.ax.axhline(level, color=INK, linewidth=1.0)


def _label_rows(axis, rows):
    weights = rows[["layer", "weight"]].drop_duplicates().itertuples(index=False, name=None)
    weights = list(weights)
    names = dict(zip(weights, series_names(weights), strict=True))
    labels = [shortened(names[layer, weight], 36) for layer, weight in rows.iloc[:, :2].to_numpy()]
    if not _only_quantity(rows):
        labels = [f"{label} · {q}" for label, q in zip(labels, rows["quantity"], strict=True)]
    axis.set_yticks(range(len(labels)), labels, fontsize=TEXT_SIZE, color=INK)


def _only_quantity(rows):
    quantities = rows["quantity"].unique()
    return f" of the {quantities[0]}" if len(quantities) == 1 else ""


def _label_steps(axis, steps):
    shown = np.arange(0, len(steps), -(-len(steps) // MOST_TICKS))
    axis.set_xticks(shown, [str(steps[j]) for j in shown], fontsize=TEXT_SIZE, color=INK)
    axis.set_xlabel("step", fontsize=TITLE_SIZE, color=INK)
    axis.tick_params(length=2, color="#9a9a9a")
