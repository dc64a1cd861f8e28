"""The lines of a figure over training steps: bands, single runs, means over runs, dots."""

import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from keras_spectral.analysis.figures.curves import (
    by_run,
    common_steps,
    mean_curve,
    permutation_bands,
)
from keras_spectral.analysis.figures.panels import line_handle

MOST_BANDS = 3
"""More groups than this share one grey band: overlapping colours cannot be told apart."""
MARKERS_PER_LINE = 12
GREY = "#b5b5b5"


class GroupLines:
    """Draws the values of groups over steps, panel by panel; of a single step, dots side by side.

    Args:
        points: DataFrame of keys and values, see `curves`.
        permuted: DataFrame of keys, `permutation` and values of permuted groups, may be empty.
        groups: Labels to draw.
        all_styles: Dictionary from label to `Style`.
    """

    def __init__(self, points, permuted, groups, all_styles):
        self.steps = common_steps(points)
        self.single = points["step"].nunique() == 1
        self.n_runs = points["run"].nunique()
        self.groups, self.styles = groups, all_styles
        self._columns = [column for column in points if column.startswith("value_")]
        self._points = dict(list(points.groupby(["layer", "weight", "group"], sort=False)))
        self._bands = permutation_bands(permuted, self.steps) if len(permuted) else {}
        self._merged = len(groups) > MOST_BANDS

    @property
    def x_label(self):
        """Label of the x axis."""
        return f"group, at step {self.steps[0]:g}" if self.single and self.steps else "step"

    def draw(self, axis, layer, weight):
        """Draw all groups of one weight: bands first, so that no band covers a line.

        Args:
            axis: Matplotlib axes.
            layer: Layer path.
            weight: Weight name.
        """
        self._draw_bands(axis, layer, weight)
        for position, group in enumerate(self.groups):
            points = self._points.get((layer, weight, group))
            if points is not None:
                for depth, column in enumerate(self._columns):
                    self._draw_curve(axis, by_run(points, column), group, depth, position)
        if self.single:
            axis.use_sticky_edges = False
            axis.set_xticks(range(len(self.groups)), self.groups)
            axis.set_xlim(-0.6, len(self.groups) - 0.4)

    def handles(self):
        """Return the entries of the legend."""
        handles = [line_handle(self.styles[group], group) for group in self.groups]
        if self.n_runs > 1:
            handles.append(Line2D([], [], color="#8a8a8a", linewidth=0.7, label="single runs"))
        if len(self._bands):
            sizes = " of all these sizes" if self._merged else ""
            label = f"95 % of permuted groups{sizes}"
            handles.append(Patch(facecolor=GREY, alpha=0.5, label=label))
        return handles

    def _draw_curve(self, axis, table, group, depth, position):
        style, opacity = self.styles[group], 1.0 / (1 + 0.6 * depth)
        mean = mean_curve(table, self.steps)
        if self.single:
            table, mean = (part.set_axis([position] * len(part)) for part in (table, mean))
        if table.shape[1] > 1:
            thin = {"marker": "_", "markersize": 10} if self.single else {"linewidth": 0.6}
            axis.plot(table, color=style.colour, alpha=0.35 * opacity, zorder=2, **thin)
        every = max(1, len(mean) // MARKERS_PER_LINE)
        axis.plot(
            mean,
            color=style.colour,
            linestyle=style.dash,
            linewidth=1.7,
            alpha=opacity,
            zorder=3,
            marker=style.marker,
            markersize=4 + 2 * self.single,
            label=group if not depth else None,
            markevery=(position * every // max(1, len(self.groups)), every),
        )

    def _draw_bands(self, axis, layer, weight):
        keys = [(layer, weight, group) for group in self.groups]
        bands = {key[-1]: self._bands[key] for key in keys if key in self._bands}
        if bands and self._merged and not self.single:
            low = np.fmin.reduce([band["low"] for band in _aligned(bands.values())])
            high = np.fmax.reduce([band["high"] for band in _aligned(bands.values())])
            steps = _aligned(bands.values())[0].index
            axis.fill_between(steps, low, high, color=GREY, alpha=0.35, linewidth=0, zorder=1)
            return
        for group, band in bands.items():
            style = {"color": self.styles[group].colour, "alpha": 0.16, "linewidth": 0, "zorder": 1}
            if self.single:
                place, height = self.groups.index(group), band["high"] - band["low"]
                axis.bar(place, height, width=0.4, bottom=band["low"], **style)
            else:
                axis.fill_between(band.index, band["low"], band["high"], **style)


def _aligned(bands):
    bands = list(bands)
    steps = sorted(set().union(*(band.index for band in bands)))
    return [band.reindex(steps) for band in bands]
