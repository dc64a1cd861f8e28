"""Singular values and summaries over training, one panel per weight, one colour per group."""

from keras_spectral.analysis.compare import summary_names
from keras_spectral.analysis.figures.curves import (
    drawn_groups,
    drawn_series,
    permuted_points,
    singular_value_points,
    summary_points,
    thinned,
)
from keras_spectral.analysis.figures.lines import GroupLines
from keras_spectral.analysis.figures.panels import (
    frame,
    legend_below,
    linear,
    logarithmic,
    message_figure,
    panel_title,
    spans_decades,
    step_scale,
    wrapped_grid,
)
from keras_spectral.analysis.figures.styles import styles
from keras_spectral.analysis.labels import SUMMARY_LABELS, correction_labels, leading_label
from keras_spectral.summaries import NORMS

MAX_PANELS = 12
NOTHING = "the recorded spectra are truncated (`top_k`) or not finite."


def trajectories(
    log, quantity="gradient", layers=None, groups=None, k=1, summary=None, size_corrected=True
):
    """Return a figure of singular values, or of a summary, over training steps.

    Lines are means over runs at the steps that all runs recorded; thin lines are single runs. The
    pale band behind a line holds 95 % of permuted groups of the same size at each step: a line
    inside its band does not differ from a random group. With more than three groups one grey band
    spans the bands of all groups. A log of one step is drawn as one dot per group.

    Args:
        log: A `SpectralLog`.
        quantity: `"activation"`, `"adjoint"` or `"gradient"`.
        layers: Layer path or list of them; `None` draws all, or 12 spread over a deeper model.
            Ranks of vectors, such as a bias, are always 1 and are left out.
        groups: Group label or list of them; `None` draws every group but `all`.
        k: Number of leading singular values; smaller ones are paler. Bands are those of the first.
        summary: Name of a summary to draw instead of singular values.
        size_corrected: Multiply singular values and norms by `size_correction`, so that groups of
            different sizes can be compared.

    Returns:
        A matplotlib `Figure`.

    Raises:
        LogError: If the quantity, a layer or a group does not occur.
        ComparisonError: If the summary is unknown.

    Example:
        >>> trajectories(log, summary="effective_rank")  # doctest: +SKIP
    """
    name = summary_names(summary)[0] if summary is not None else None
    ranks = name is not None and name not in NORMS
    series, note = drawn_series(log, quantity, layers, MAX_PANELS, ranks)
    chosen = drawn_groups(log, groups)
    part = log.select(quantity=quantity, layer=[layer for layer, _, _ in series], group=chosen)
    points, permuted, block = _points(part, k, name, size_corrected)
    if points["value_1"].isna().all():
        return message_figure(f"No value of {name or 'the singular values'} to draw:\n{NOTHING}")
    lines = GroupLines(points, permuted, chosen, styles(log.groups))
    figure, axes = wrapped_grid(len(series))
    for axis, (layer, weight, title) in zip(axes, series, strict=True):
        lines.draw(axis, layer, weight)
        panel_title(axis, title)
    _scale(axes, points, lines)
    label = SUMMARY_LABELS[name] if name else leading_label(k)
    factor, meaning = correction_labels(quantity, name, size_corrected)
    title = f"{label[0].upper()}{label[1:]} of the {quantity}"
    frame(figure, axes, title, lines.x_label, f"{label}\n{factor}".strip())
    thinning = f"each point: mean of about {block} recorded steps" if block > 1 else ""
    notes = [meaning, thinning, note]
    legend_below(figure, lines.handles(), "; ".join(filter(None, notes)))
    return figure


def _points(log, k, summary, size_corrected):
    """Return values by step, those of permuted groups, and the number of steps of each point."""
    if summary:
        points = summary_points(log, summary, size_corrected)
    else:
        points = singular_value_points(log, k, size_corrected)
    permuted = permuted_points(log, summary or "spectral_norm", size_corrected)
    points, block = thinned(points, log.steps)
    return points, thinned(permuted, log.steps)[0], block


def _scale(axes, points, lines):
    columns = [column for column in points if column.startswith("value_")]
    per_panel = points.groupby(["layer", "weight"])[columns]
    wide = any(spans_decades(values.to_numpy()) for _, values in per_panel)
    for axis in axes:
        (logarithmic if wide else linear)(axis)
        if not lines.single:
            step_scale(axis, lines.steps)
