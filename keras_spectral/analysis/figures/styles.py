"""Line styles of groups: colour, dash and marker, distinguishable without colour vision too."""

from dataclasses import dataclass
from typing import Any

from keras_spectral.groups import ALL

INK = "#1a1a1a"
FAINT = "#6b6b6b"

COLOURS = (
    "#0072B2",  # blue
    "#D55E00",  # vermilion
    "#009E73",  # green
    "#CC79A7",  # pink
    "#E69F00",  # orange
    "#56B4E9",  # sky
    "#7A6A00",  # the palette's yellow, darkened: yellow is unreadable on white
    "#7F7F7F",  # grey
)
"""Source: Okabe and Ito, "Color Universal Design", 2008, reordered."""

DASHES: tuple[Any, ...] = (
    "-",
    (0, (5, 1.6)),
    (0, (1.2, 1.2)),
    (0, (6, 1.5, 1.2, 1.5)),
    (0, (9, 2)),
    (0, (3, 1, 1, 1, 1, 1)),
    (0, (2.5, 2.5)),
    (0, (1, 3)),
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")


@dataclass(frozen=True)
class Style:
    """The line style of one group.

    Attributes:
        colour: Matplotlib colour of its lines.
        dash: Matplotlib line style.
        marker: Matplotlib marker.
    """

    colour: str
    dash: Any
    marker: str


def styles(groups):
    """Return a style for each group, which does not depend on which of them are drawn.

    Args:
        groups: All group labels of a log; `all` is black.

    Returns:
        Dictionary from label to `Style`. Beyond eight groups colours repeat.
    """
    named = sorted(group for group in groups if group != ALL)
    result = {
        group: Style(
            COLOURS[j % len(COLOURS)],
            DASHES[(j + j // len(DASHES)) % len(DASHES)],
            MARKERS[(j + j // len(MARKERS)) % len(MARKERS)],
        )
        for j, group in enumerate(named)
    }
    return result | {ALL: Style("#000000", (0, (1, 0)), "*")}
