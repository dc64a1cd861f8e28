"""Whole spectra: singular values against their index, at a few steps."""

import numpy as np

from keras_spectral.analysis.figures.curves import (
    drawn_groups,
    drawn_series,
    singular_value_points,
)
from keras_spectral.analysis.figures.panels import (
    frame,
    legend_below,
    line_handle,
    logarithmic,
    panel_grid,
    panel_title,
    whole_numbers,
    wrapped_grid,
)
from keras_spectral.analysis.figures.styles import styles
from keras_spectral.analysis.labels import correction_labels
from keras_spectral.errors import LogError

MAX_ROWS = 6
FLOOR = 1e-6
"""Singular values below `FLOOR` times the largest of a panel are rounding errors: not drawn."""
MARKERS_PER_LINE = 16


def spectra(log, quantity="gradient", steps=None, layers=None, groups=None, size_corrected=True):
    """Return a figure of whole spectra: one row of panels per weight, one column per step.

    Lines are means over the runs that recorded the step.

    Args:
        log: A `SpectralLog`.
        quantity: `"activation"`, `"adjoint"` or `"gradient"`.
        steps: Step or list of steps; `None` draws the first, the middle and the last.
        layers: Layer path or list of them; `None` draws all, or 6 spread over a deeper model.
        groups: Group label or list of them; `None` draws every group but `all`.
        size_corrected: Multiply singular values by `size_correction`, so that groups of
            different sizes can be compared.

    Returns:
        A matplotlib `Figure`.

    Raises:
        LogError: If the quantity, a step, a layer or a group does not occur.

    Example:
        >>> spectra(log, steps=[0, 100])  # doctest: +SKIP
    """
    series, note = drawn_series(log, quantity, layers, MAX_ROWS)
    chosen, steps = drawn_groups(log, groups), _drawn_steps(log.select(quantity=quantity), steps)
    keys = {"quantity": quantity, "group": chosen, "step": steps}
    part = log.select(**keys, layer=[layer for layer, _, _ in series])
    means = _mean_spectra(singular_value_points(part, part.sigma.shape[1], size_corrected))
    group_styles = {group: style for group, style in styles(log.groups).items() if group in chosen}
    figure, axes = _panels(len(series), len(steps))
    panels = [(*weight, step) for weight in series for step in steps]
    for axis, (layer, weight, title, step) in zip(axes, panels, strict=True):
        _draw_panel(axis, means, (layer, weight, step), group_styles)
        panel_title(axis, title, f"step {step}")
    factor, meaning = correction_labels(quantity, None, size_corrected)
    label = f"k-th largest singular value\n{factor}"
    frame(figure, axes, f"Spectra of the {quantity}", "k", label)
    handles = [line_handle(group_styles[group], group) for group in chosen]
    legend_below(figure, handles, "; ".join(filter(None, [meaning, note])))
    return figure


def _panels(n_rows, n_columns):
    if n_columns == 1:
        return wrapped_grid(n_rows)
    width, height = (4.8, 2.6) if n_columns == 2 else (3.6, 2.3)
    figure, axes = panel_grid(n_rows, n_columns, width, height)
    return figure, list(axes.flat)


def _drawn_steps(log, steps):
    if steps is None:
        return sorted({log.steps[0], log.steps[len(log.steps) // 2], log.steps[-1]})
    chosen = [steps] if np.ndim(steps) == 0 else list(steps)
    missing = [step for step in chosen if step not in log.steps]
    if missing or not chosen:
        raise LogError(
            f"`steps` must be recorded steps. Received: steps={steps!r}, of which {missing} are "
            f"not. Try some of {log.steps[:20]}."
        )
    return chosen


def _mean_spectra(points):
    columns = [column for column in points if column.startswith("value_")]
    return points.groupby(["layer", "weight", "step", "group"])[columns].mean()


def _draw_panel(axis, means, key, group_styles):
    present = {group: (*key, group) for group in group_styles if (*key, group) in means.index}
    values = {group: means.loc[place].dropna().to_numpy() for group, place in present.items()}
    largest = max((spectrum.max(initial=0.0) for spectrum in values.values()), default=0.0)
    for group, spectrum in values.items():
        style, drawn = group_styles[group], np.where(spectrum > FLOOR * largest, spectrum, np.nan)
        axis.plot(
            np.arange(1, len(drawn) + 1),
            drawn,
            color=style.colour,
            linestyle=style.dash,
            marker=style.marker,
            markersize=4,
            linewidth=1.7,
            label=group,
            markevery=max(1, len(drawn) // MARKERS_PER_LINE),
        )
    if largest > 0:
        logarithmic(axis)
    else:
        axis.text(0.5, 0.5, "nothing above zero", transform=axis.transAxes, ha="center")
    whole_numbers(axis)
