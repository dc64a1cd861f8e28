"""The figures of a report, each with a text that says what it shows and how to read it."""

from dataclasses import dataclass
from typing import Any

from keras_spectral.analysis import figures
from keras_spectral.analysis.labels import SUMMARY_LABELS, listed

MOST_MAPS = 6
TRAJECTORY = (
    "One panel per weight, one line per group. A line that leaves its pale band for many steps in "
    "a row differs more than a random group of the same size would; where there is no band, no "
    "permutations were recorded, and nothing says how large a difference is by chance."
)
READINGS = {
    "spectral_norm": {
        "gradient": TRAJECTORY,
        "activation": "What each layer multiplies by its weight. Read it as the first figure.",
        "adjoint": (
            "The derivative of the loss with respect to what each layer computes before its "
            "nonlinearity: the error as it arrives there. Read it as the first figure."
        ),
    },
    "effective_rank": (
        "Roughly, the number of directions in use. Ranks have no size correction: the larger group "
        "has more directions by chance, so compare each line with its band, not with another line."
    ),
}
SPECTRUM = (
    "A flat line: many directions are about equally strong. A steep one: a few dominate. A line "
    "that ends early: that group has fewer singular values, because it has fewer examples."
)
MAP = (
    "Each cell is one weight at one step: the difference between the groups in standard "
    "deviations of permuted groups. Look for rows of one colour: single dots appear by chance, "
    "and a column of one colour where one group happened to be large in that batch."
)


@dataclass(frozen=True)
class ReportFigure:
    """A figure with its texts.

    Attributes:
        name: Name of its file, without suffix.
        figure: A matplotlib `Figure`.
        alt: Description for screen readers.
        reading: How to read it.
    """

    name: str
    figure: Any
    alt: str
    reading: str


def report_figures(log, pairs):
    """Return the figures of a report.

    Args:
        log: A `SpectralLog`.
        pairs: A `Pairs`, the comparisons of the report.

    Returns:
        List of `ReportFigure`.
    """
    main = "gradient" if "gradient" in log.quantities else log.quantities[0]
    others = [quantity for quantity in log.quantities if quantity != main]
    chosen = [_trajectory(log, main, "spectral_norm"), _trajectory(log, main, "effective_rank")]
    chosen.append(_spectra(log, main))
    chosen += [_trajectory(log, quantity, "spectral_norm") for quantity in others]
    if len(log.permutations):
        wanted = [
            (pair, name) for pair in pairs.names for name in ("spectral_norm", "effective_rank")
        ]
        chosen += [_map(log, *pair, name) for pair, name in wanted[:MOST_MAPS]]
    return chosen


def _trajectory(log, quantity, summary):
    return ReportFigure(
        f"trajectories_{quantity}_{summary}",
        figures.trajectories(log, quantity, summary=summary),
        f"Line chart over training steps: {SUMMARY_LABELS[summary]} of the {quantity}, "
        f"{_what(log)}.",
        _reading(quantity, summary),
    )


def _reading(quantity, summary):
    reading = READINGS[summary]
    return reading[quantity] if isinstance(reading, dict) else reading


def _spectra(log, quantity):
    return ReportFigure(
        f"spectra_{quantity}",
        figures.spectra(log, quantity),
        f"Line chart of whole spectra of the {quantity} at up to three steps, {_what(log)}.",
        SPECTRUM,
    )


def _map(log, a, b, summary):
    return ReportFigure(
        "z_map_" + _plain(f"{a}_{b}_{summary}"),
        figures.z_map(log, a, b, summary),
        f"Heat map of weights by training steps: {SUMMARY_LABELS[summary]}, {a} minus {b}, in "
        "standard deviations of permuted groups.",
        MAP,
    )


def _what(log):
    return f"one panel for each weight of {listed(log.layers[:12])}, groups {listed(log.groups)}"


def _plain(text):
    return "".join(letter if letter.isalnum() else "_" for letter in text)
