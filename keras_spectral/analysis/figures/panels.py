"""Grids of panels in one style: titles, axes, legends outside the data."""

import math
import textwrap

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from keras_spectral.analysis.figures.styles import FAINT, INK
from keras_spectral.analysis.labels import WEIGHT_MARK, shortened

TITLE_SIZE = 10
TEXT_SIZE = 9
CHARACTERS_PER_INCH = 8
"""Bold characters of `TITLE_SIZE` that fit in an inch."""
LEGEND_CHARACTERS_PER_INCH = 14
"""Characters of a legend's entry that fit in an inch."""
LEGEND_HANDLE = 0.75
"""Inches of a legend's entry beside its characters."""


def panel_grid(n_rows, n_columns, width=3.5, height=2.4):
    """Return a figure with a grid of panels.

    Args:
        n_rows: Number of rows.
        n_columns: Number of columns.
        width: Inches of a panel.
        height: Inches of a panel.

    Returns:
        A matplotlib `Figure` and an array of axes `[n_rows, n_columns]`.
    """
    size = (n_columns * width, n_rows * height + 1.0)
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    figure.get_layout_engine().set(h_pad=0.08, w_pad=0.08)  # type: ignore[union-attr]
    axes = figure.subplots(n_rows, n_columns, squeeze=False)
    for axis in axes.flat:
        plain_axis(axis)
    return figure, axes


def wrapped_grid(n_panels):
    """Return a figure with panels in reading order, wrapped into rows.

    Args:
        n_panels: Number of panels, at least 1.

    Returns:
        A matplotlib `Figure`, and a list of `n_panels` axes.
    """
    columns = {1: 1, 2: 2, 4: 2}.get(n_panels, 3)
    width, height = {1: (6.8, 3.6), 2: (4.8, 2.9), 3: (3.6, 2.4)}[columns]
    figure, axes = panel_grid(math.ceil(n_panels / columns), columns, width, height)
    for axis in axes.flat[n_panels:]:
        axis.remove()
    return figure, list(axes.flat[:n_panels])


def bottom_panels(axes):
    """Return the lowest panel of each column.

    Args:
        axes: List of axes in a grid.

    Returns:
        List of axes.
    """
    lowest = {}
    for axis in axes:
        place = axis.get_subplotspec()
        lowest[place.colspan.start] = axis
    return list(lowest.values())


def plain_axis(axis):
    """Draw an axis plainly: no box, a faint grid, small ticks.

    Args:
        axis: Matplotlib axes.
    """
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color("#9a9a9a")
    axis.grid(True, color="#e6e6e6", linewidth=0.7)
    axis.set_axisbelow(True)
    axis.tick_params(labelsize=TEXT_SIZE, labelcolor=INK, length=3, color="#9a9a9a")


def panel_title(axis, text, right=""):
    """Write the title of a panel: if it is long, the weight below its layer, each shortened.

    Args:
        axis: Matplotlib axes.
        text: Title.
        right: A second title in grey at the right end.
    """
    columns = axis.get_subplotspec().get_gridspec().ncols
    width = int(axis.figure.get_figwidth() / columns * CHARACTERS_PER_INCH) - len(right)
    style = {"fontsize": TITLE_SIZE, "color": INK, "weight": "bold"}
    lines = [text] if len(text) <= width else text.split(WEIGHT_MARK)
    axis.set_title("\n".join(shortened(line, width) for line in lines), loc="left", **style)
    axis.set_title(right, loc="right", fontsize=TEXT_SIZE, color=FAINT)


def frame(figure, axes, title, x_label, y_label):
    """Write the figure's title and the axis labels that its panels share.

    Args:
        figure: Matplotlib `Figure`.
        axes: List of its panels.
        title: Title of the figure.
        x_label: Label below the lowest panels.
        y_label: Shared label on the left.
    """
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, color=INK, weight="bold")
    figure.supylabel(y_label, fontsize=TITLE_SIZE, color=INK)
    for axis in bottom_panels(axes):
        axis.set_xlabel(x_label, fontsize=TITLE_SIZE, color=INK)


def whole_numbers(axis, n_ticks=5):
    """Put ticks of the x axis on whole numbers only.

    Args:
        axis: Matplotlib axes.
        n_ticks: About how many.
    """
    axis.xaxis.set_major_locator(MaxNLocator(n_ticks, integer=True, min_n_ticks=1))


def linear(axis, flat=1e-3):
    """Give an axis plain ticks, and a range that does not magnify rounding errors.

    Args:
        axis: Matplotlib axes, with data.
        flat: Relative range below which values count as constant, and are drawn as a flat line.
    """
    low, high = axis.get_ylim()
    middle = (low + high) / 2
    if high - low < flat * abs(middle):
        axis.set_ylim(middle - 0.1 * abs(middle), middle + 0.1 * abs(middle))
    axis.ticklabel_format(axis="y", useOffset=False)


def step_scale(axis, steps):
    """Scale an x axis of steps: logarithmic beyond 1 if the steps were chosen that way.

    Args:
        axis: Matplotlib axes.
        steps: Drawn steps, ascending.
    """
    if len(steps) >= 5 and steps[-1] > 8 * steps[len(steps) // 2]:
        axis.set_xscale("symlog", linthresh=1)
        axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.xaxis.set_minor_locator(NullLocator())
    else:
        whole_numbers(axis)


def logarithmic(axis):
    """Give an axis a logarithmic scale whose ticks are plain numbers.

    Args:
        axis: Matplotlib axes, with data.
    """
    axis.set_yscale("log")
    low, high = axis.get_ylim()
    decades = np.log10(high / low)
    subs = (1.0,) if decades > 2 else (1.0, 2.0, 5.0)
    few = decades < 0.8
    axis.yaxis.set_major_locator(MaxNLocator(4) if few else LogLocator(subs=subs, numticks=7))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.yaxis.set_minor_locator(NullLocator())


def legend_below(figure, handles, note=""):
    """Put one legend below all panels.

    Args:
        figure: Matplotlib `Figure`.
        handles: Artists with labels.
        note: Text above the entries, such as the size correction.
    """
    legend = figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=_legend_columns([handle.get_label() for handle in handles], figure.get_figwidth()),
        frameon=False,
        fontsize=TEXT_SIZE,
        labelcolor=INK,
        handlelength=3.2,
        columnspacing=1.6,
        title=textwrap.fill(note, int(figure.get_figwidth() * 13)) or None,
        title_fontsize=TEXT_SIZE,
    )
    legend.get_title().set_color(FAINT)


def _legend_columns(labels, width):
    """Return the largest number of columns, filled one after the other, that fit the width."""
    inches = [LEGEND_HANDLE + len(label) / LEGEND_CHARACTERS_PER_INCH for label in labels]
    for n in range(len(labels), 1, -1):
        if sum(max(column) for column in np.array_split(inches, n)) <= width:
            return n
    return 1


def line_handle(style, label):
    """Return a legend entry for a group.

    Args:
        style: A `Style`.
        label: Its text.

    Returns:
        A matplotlib `Line2D`.
    """
    return Line2D(
        [],
        [],
        color=style.colour,
        linestyle=style.dash,
        marker=style.marker,
        markersize=4.5,
        linewidth=1.8,
        label=shortened(label, 28),
    )


def message_figure(text):
    """Return a figure whose only content is a text: why there is nothing to draw.

    Args:
        text: Reason, and what to do.

    Returns:
        A matplotlib `Figure`.
    """
    figure = Figure(figsize=(7.0, 1.6), layout="constrained", facecolor="white")
    figure.text(0.5, 0.5, text, ha="center", va="center", color=FAINT, fontsize=11, wrap=True)
    return figure


def spans_decades(values, factor=20.0):
    """Return whether positive values span so much that a logarithmic axis shows them better.

    Args:
        values: Array.
        factor: Ratio of largest to smallest.

    Returns:
        `True` for a logarithmic axis.
    """
    positive = values[np.isfinite(values) & (values > 0)]
    return bool(len(positive) and positive.max() > factor * positive.min())
