"""How the overhead of recording grows: with width, rows, groups and layers, everything else fixed.

    python -m benchmarks.scale [--seconds 3] [--only NAME] [--write docs/benchmarks-scale.md]

Plain and recorded training take turns. Points that would take more than a minute, or more memory
than there should be, are left out and named.
"""

import argparse
import csv
import gc
import math
import time
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.lines import Line2D

from benchmarks.counting import EIGENVALUE_SIZES, PRODUCT, measured_constants, work_of
from benchmarks.equal_layers import PLAIN, RECORDED, Size, peak_bytes, trainer
from benchmarks.page import machine, table
from benchmarks.plan import plan
from keras_spectral import solver
from keras_spectral.log import spool
from keras_spectral.matrices import base
from keras_spectral.spectra import batching, feature_gram, row_gram
from keras_spectral.spectra.host import EIGEN

FEWEST = 3
"""Turns of a point, at least."""

TURN_SECONDS = 1.0
"""Steps of a turn grow fourfold until plain and recorded take at least half as long."""

LONGEST, POINT_SECONDS = 64, 60
"""Steps of a turn, at most, and what a point may take."""

POINT_BYTES, DATA_BYTES = 8e9, 2e8
"""What a point may need, and its data."""

QUICK_POINTS, QUICK_SIZES = 2, (64, PRODUCT)
"""Points of each curve, and sizes of matrices, that `--quick` measures."""

FITTED = 3
"""Points of a curve to which a line is fitted: the largest that are clear of noise, on one side."""


@dataclass(frozen=True)
class Curve:
    """Sizes that differ in one way.

    Attributes:
        title: What is fixed.
        base: `Size` with everything that is fixed.
        field: Attribute of `Size` that grows.
        values: Its values, smallest first.
        unit: What one of `values` counts, in units of the panel's axis.
    """

    title: str
    base: Size
    field: str
    values: tuple
    unit: int = 1

    @property
    def points(self):
        """Pairs of a value on the axis and a `Size`."""
        return [(v * self.unit, replace(self.base, **{self.field: v})) for v in self.values]


def _doubled(first, last, factor=2):
    values = [first]
    while values[-1] < last:
        values.append(values[-1] * factor)
    return tuple(values)


PANELS = {
    "width": (
        Curve("128 rows", Size(examples=128), "width", _doubled(128, 8192)),
        Curve("512 rows", Size(examples=32, positions=16), "width", _doubled(128, 8192)),
    ),
    "rows": (
        Curve("width 64", Size(width=64, examples=16), "positions", _doubled(1, 4096, 4), 16),
        Curve("width 256", Size(width=256, examples=16), "positions", _doubled(1, 4096, 4), 16),
    ),
    "groups": (
        Curve("128 rows of width 512", Size(width=512, examples=128), "groups", _doubled(2, 64)),
        Curve(
            "2048 rows of width 128",
            Size(width=128, examples=128, positions=16),
            "groups",
            _doubled(2, 64),
        ),
    ),
    "layers": (
        Curve("32 rows of width 256", Size(width=256, examples=32), "layers", _doubled(2, 64)),
        Curve(
            "512 rows of width 128",
            Size(width=128, examples=32, positions=16),
            "layers",
            _doubled(2, 64),
        ),
    ),
}
"""The curves of each panel."""

HEAD = [
    "grows",
    "fixed",
    "size",
    "side",
    "turns",
    "steps of a turn",
    "plain, ms",
    "recorded, ms",
    "overhead, ms",
    "middle half",
    "counted, ms",
]
FIT_HEAD = [
    "grows",
    "fixed",
    "fitted to",
    "measured exponent",
    "counted exponent",
    "most of the count, at the largest",
    "sides",
]
MEMORY_HEAD = [
    "grows",
    "fixed",
    "size",
    "plain, MB",
    "recorded, MB",
    "more, MB",
    "factors, MB",
    "statistics, MB",
]


@dataclass
class Found:
    """What was found at one point.

    Attributes:
        value: Value on the axis.
        size: `Size`.
        work: `Work` of a recorded step.
        parts: `{part: seconds}` of a recorded step, counted.
        times: Array `[turn, 2]` of milliseconds per plain and recorded step.
        steps: Steps of a turn.
    """

    value: int
    size: Size
    work: object
    parts: dict
    times: object = None
    steps: int = 0

    @property
    def counted(self):
        """Milliseconds of a recorded step, counted."""
        return sum(self.parts.values()) * 1e3

    @property
    def overhead(self):
        """Milliseconds of a recorded step beyond a plain one: lower quartile, median, upper."""
        return np.quantile(self.times[:, 1] - self.times[:, 0], (0.25, 0.5, 0.75))

    @property
    def is_clear(self):
        """Whether the overhead is above the noise of plain steps: in the middle half of turns."""
        return self.overhead[0] > 0


def measured(panel, curve, constants, seconds, say):
    """Yield what is found at every point of a curve that does not take too long.

    Args:
        panel: What grows.
        curve: `Curve`.
        constants: `Constants`.
        seconds: Of a point, about.
        say: Function that is told what is left out.
    """
    before = None
    for value, size in curve.points:
        weights = [(size.positions, size.width, size.width)] * size.layers
        work = work_of(weights, size.examples, size.groups)
        found = Found(value, size, work, constants.parts(work))
        expected = _expected_seconds(found, before, constants)
        n_bytes = _expected_bytes(found)
        name = f"{panel} {value} at {curve.title}"
        if expected > POINT_SECONDS:
            say(f"{name}: about {expected:.0f} s would be more than {POINT_SECONDS} s.")
        elif n_bytes > POINT_BYTES:
            say(
                f"{name}: about {n_bytes / 1e9:.1f} GB would be more than {POINT_BYTES / 1e9:g} GB."
            )
        else:
            found.times, found.steps = _turns(size, seconds)
            keras.utils.clear_session()
            gc.collect()
            before = found
            yield found


def _expected_seconds(found, before, constants):
    """Return what a point takes: two steps of each to begin with, then turns of at least one."""
    step = found.size.step_operations * constants.product / 1e9
    overhead = found.counted / 1e3
    if before is not None:  # not everything is counted
        plain, recorded = np.median(before.times, axis=0) / 1e3
        step = plain * found.size.step_operations / before.size.step_operations
        overhead = max(overhead, (recorded - plain) * found.counted / before.counted)
    return (2 * step + overhead) * (2 + FEWEST)


def _expected_bytes(found):
    """Return what a point needs beyond TensorFlow: weights, gradients, batches, records."""
    size, work = found.size, found.work
    batch = 4 * size.rows * size.width
    weights = 2 * 2 * 4 * size.layers * size.width**2
    statistics = work.statistics + max(work.statistics, 2 * batching.TOGETHER_BYTES)
    return weights + (2 * size.layers + 3) * batch + 4 * work.factors + statistics


def _turns(size, seconds):
    """Return milliseconds per plain and recorded step, `[turn, 2]`, and the steps of a turn."""
    trainers = [trainer(size, case) for case in (PLAIN, RECORDED)]
    most = min(LONGEST, max(1, int(DATA_BYTES / (4 * size.rows * size.width))))
    steps, data = 1, size.data(1)
    for train in trainers:
        train(data)
    while sum(train(data) for train in trainers) * steps / 1e3 < TURN_SECONDS / 2 and steps < most:
        steps = min(most, 4 * steps)
        data = size.data(steps)
    times, end = [], time.monotonic() + seconds
    while len(times) < FEWEST or time.monotonic() < end:
        times.append([train(data) for train in trainers])
    return np.array(times), steps


def row(panel, curve, found):
    """Return a table row, see `HEAD`."""
    plain, recorded = np.median(found.times, axis=0)
    low, middle, high = found.overhead
    return [
        panel,
        curve.title,
        found.value,
        found.work.side,
        len(found.times),
        found.steps,
        f"{plain:.2f}",
        f"{recorded:.2f}",
        f"{middle:.2f}",
        f"{low:.2f}–{high:.2f}",
        f"{found.counted:.2f}",
    ]


def exponent(values, milliseconds):
    """Return slope and intercept of the least squares line through the logarithms.

    Args:
        values: Sequence of positive numbers.
        milliseconds: Sequence as long, positive.
    """
    return np.polyfit(np.log(values), np.log(milliseconds), 1)


def fitted(points):
    """Return the largest points, and the lines through what was measured and through the counts.

    Args:
        points: List of `Found`, smallest first.

    Returns:
        `(points, measured, counted)`; lines are `None` where no two points are clear.
    """
    clear = [found for found in points if found.is_clear]
    largest = [found for found in clear if found.work.side == clear[-1].work.side][-FITTED:]
    if len(largest) < 2:
        return largest, None, None
    values = [found.value for found in largest]
    lines = (
        exponent(values, [of(found) for found in largest])
        for of in (lambda found: found.overhead[1], lambda found: found.counted)
    )
    return largest, *lines


def fit_row(panel, curve, points):
    """Return a table row, see `FIT_HEAD`."""
    largest, measured_line, counted_line = fitted(points)
    slopes = ["" if line is None else f"{line[0]:.2f}" for line in (measured_line, counted_line)]
    if not largest:
        return [panel, curve.title, "nothing", *slopes, "", ""]
    parts = largest[-1].parts
    part = max(parts, key=parts.get)
    share = f"{part}, {100 * parts[part] / sum(parts.values()):.0f} %"
    sizes = f"{largest[0].value}–{largest[-1].value}"
    return [panel, curve.title, sizes, *slopes, share, _sides(points)]


def _sides(points):
    """Return where the side changes, as a text."""
    runs = []
    for found in points:
        if not runs or runs[-1][0] != found.work.side:
            runs.append([found.work.side, found.value])
    return "; ".join(f"{side} from {value}" for side, value in runs)


def memory_rows(panel, curve, points):
    """Yield table rows, see `MEMORY_HEAD`, of the middle of a curve and of its end."""
    chosen = sorted({len(points) // 2, len(points) - 1}) if points else []
    for found in (points[j] for j in chosen):
        plain, recorded = (peak_bytes(found.size, case, found.steps) for case in (PLAIN, RECORDED))
        megabytes = [f"{n / 1e6:.0f}" for n in (plain, recorded, recorded - plain)]
        megabytes += [f"{n / 1e6:.2f}" for n in (found.work.factors, found.work.statistics)]
        yield [panel, curve.title, found.value, *megabytes]


COLOURS, MARKERS = ("#0072B2", "#D55E00"), ("o", "s")


def figure(found):
    """Return a figure of a panel for each way to grow.

    Args:
        found: Dictionary from the panel to pairs of a `Curve` and its list of `Found`.
    """
    shape = math.ceil(len(found) / 2), min(2, len(found))
    fig, axes = plt.subplots(*shape, figsize=(9, 8), layout="constrained", squeeze=False)
    for ax, (panel, curves) in zip(axes.flat, found.items(), strict=True):
        for colour, marker, (curve, points) in zip(COLOURS, MARKERS, curves, strict=True):
            _draw(ax, colour, marker, curve, points)
        ticks = sorted({point.value for _, points in curves for point in points})
        ax.set_xscale("log")
        ax.set_yscale("log")
        ax.set_xticks(ticks, [f"{tick:,}" for tick in ticks], rotation=30 if len(ticks) > 6 else 0)
        ax.minorticks_off()
        ax.set_xlabel(panel)
        ax.set_ylabel("overhead, ms of a recorded step")
        ax.grid(color="0.93")
        ax.legend(fontsize=8.5, frameon=False, loc="lower left", bbox_to_anchor=(0, 1))
    fig.legend(handles=_key(), loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return fig


def _draw(ax, colour, marker, curve, points):
    largest, measured_line, counted_line = fitted(points)
    label = curve.title
    if measured_line is not None:
        label += f": exponent {measured_line[0]:.2f}, counted {counted_line[0]:.2f}"
        ends = np.array([largest[0].value, largest[-1].value])
        line = np.exp(np.polyval(measured_line, np.log(ends)))
        ax.plot(ends, line, color=colour, linewidth=6, alpha=0.3, solid_capstyle="round")
    counted = [(found.value, found.counted) for found in points]
    ax.plot(*zip(*counted, strict=True), ":", color=colour, linewidth=1.6)
    for found in points:
        low, middle, high = found.overhead
        if found.is_clear:
            face = "white" if found.work.side == "rows" else colour
            ax.plot([found.value] * 2, [low, high], color=colour, linewidth=1)
            ax.plot(found.value, middle, marker, color=colour, markerfacecolor=face, markersize=7)
    ax.plot([], [], marker, color=colour, label=label)


def _key():
    grey = "0.35"
    return [
        Line2D(
            [],
            [],
            marker="o",
            linestyle="",
            color=grey,
            markerfacecolor="white",
            label="measured, side of rows",
        ),
        Line2D([], [], marker="o", linestyle="", color=grey, label="measured, side of features"),
        Line2D([], [], color=grey, linewidth=6, alpha=0.3, label=f"fitted to the {FITTED} largest"),
        Line2D([], [], linestyle=":", color=grey, label="counted, one after the other"),
    ]


def constants_table(constants):
    """Return a table of the times of eigenvalue problems and of products."""
    head = ["size d", "eigenvalues, ms", "ns per d³", "product, ns per d³", "ratio"]
    lines = [
        [
            d,
            f"{cube * d**3 / 1e6:.3f}",
            f"{cube:.3f}",
            f"{constants.products[d]:.4f}",
            f"{cube / constants.products[d]:.1f}",
        ]
        for d, cube in constants.eigen.items()
    ]
    return table(head, lines)


COUNTED = [
    ["", "side of rows", "side of features"],
    ["chosen", "where `r` is small against `w`", "else (`spectra/plan.py`)"],
    ["factors, float32", "`r w` numbers each", "the same"],
    ["statistic, float64", "`r²` numbers of each factor", "`(1 + g) w²` of each matrix"],
    ["products", "`r² w / 2` of each factor", "`r i² / 2`, `r o² / 2`, `r i o`"],
    ["eigenvalue problems", "of size `r` and `r_g`", "`1 + g` of size `w`"],
    ["exponent in width", "1, by products", "2 by products, 3 by eigenvalues"],
    ["exponent in rows", "2 by products, 3 by eigenvalues", "1 by products, 0 by eigenvalues"],
    ["exponent in groups", "0: their problems grow smaller", "0 by products, 1 by eigenvalues"],
    ["exponent in layers", "1", "1"],
]
"""What theory says, each line a row of a table."""


def held():
    """Return a table of what may be held at one time, by the constants of the code."""
    lines = [
        [
            "factors of steps on their way to the thread",
            f"{_megabytes(solver.BACKLOG_BYTES)} and the latest",
            "`solver.py`",
        ],
        [
            "rows in float64",
            f"{base.CHUNK_NUMBERS:,} numbers a thread, or an example's",
            "`matrices/base.py`",
        ],
        [
            "statistics of steps",
            f"{batching.TOGETHER} steps, or {_megabytes(batching.TOGETHER_BYTES)} and the latest",
            "`spectra/batching.py`",
        ],
        [
            "blocks of groups solved together",
            f"{_megabytes(row_gram.CHUNK_BYTES)}, or one",
            "`spectra/row_gram.py`",
        ],
        [
            "sums of examples solved together",
            f"{_megabytes(feature_gram.CHUNK_BYTES)}, or one",
            "`spectra/feature_gram.py`",
        ],
        [
            "the log",
            f"{_megabytes(spool.MEMORY_LIMIT)}, the rest in a file",
            "`log/spool.py`",
        ],
    ]
    return table(["what", "at most", "set in"], lines)


PAGE = """\
# How the overhead grows

Made by `python -m benchmarks.scale --seconds {seconds} --write {write}` (`make bench-scale`), in
{minutes:.0f} minutes. {machine}.

![Overhead against width, rows, groups and layers, two curves each: measured, fitted and
counted](images/scale.png)

Dense layers of one width on random data, plain gradient descent, groups that divide the batch,
three quantities of every layer and group, all singular values, every step
(`benchmarks/equal_layers.py`). *Overhead* is the time of a recorded step beyond that of a plain
one: each turn trains both; the table has the median of the differences, and their middle half.
Where that reaches below zero, the overhead is lost in the noise of plain steps.

*Counted* is arithmetic: the multiplications of what the library chooses to do
(`benchmarks/counting.py`), times the constants measured below, one after the other. The overhead is
less where cores are free, as threads work beside training, and more where operations are many
or wait for memory, which is not counted. The points below as a table to compute with:
[scale.csv](scale.csv).

## Exponents

By least squares on the logarithms, over the {fitted} largest points of each curve, on one side,
where the middle half of the differences is above zero; only such points are drawn. *Counted*: the
same fit to the counts. They are slopes between those sizes; further on, the largest part decides.

{fits}

What is counted, of a weight with `r` rows, `i` inputs, `o` outputs (`w` is either, or the smaller),
in `g` groups of `r_g` rows:

{counted}

On the side of the rows, a factor with fewer features than rows is its own root, and its problems
have its size. With as many groups as examples, or more, the statistic has a part of each example
(*examples*), which are added up later, `n g i o` more products. Of a large activation or adjoint
each group may take the side that is smaller for it (*each*). The regime changes where the cheaper
side does: in the table above, *sides*.

A plain step has `3 r i o` multiplications for a layer. So on the side of the rows the overhead
vanishes against it, as `r / w`, while on the side of the features products are a constant part of
it, and eigenvalues grow as `g w / r`.

## Constants

One core, float64, measured just before the curves. *Product* is that of two square matrices;
*ratio*: what an eigenvalue problem takes, in multiplications of such a product for each `d³`.
`EIGEN` of `spectra/host.py`, by which the side is chosen, is {eigen_now:g}. Products are counted at
the {product:.3f} ns of size {size}; a Gram matrix has half the multiplications.

{constants}

## Points

{left_out}

{points}

## Memory

Measured: peak resident memory of a process that trains three epochs of a turn's steps, TensorFlow
and the data included. Counted: the activations and adjoints of a recorded step (*factors*), and the
statistics that the thread reduces them to.

{memory}

What may be held at one time, by the constants of the code:

{held}

{plan}"""


def page(found, left_out, memory, constants, **options):
    """Return the page.

    Args:
        found: List of a panel, a `Curve` and its list of `Found`.
        left_out: List of sentences.
        memory: Table rows, see `MEMORY_HEAD`.
        constants: `Constants`.
        **options: What else the page says.
    """
    said = "\n".join(f"- {each}" for each in left_out)
    costs_rows = [row(panel, curve, each) for panel, curve, points in found for each in points]
    overhead_by_counted = [
        each.overhead[1] / each.counted
        for _, _, points in found
        for each in fitted(points)[0]
        if each.work.side == "features"
    ]
    return PAGE.format(
        machine=machine(),
        fitted=FITTED,
        fits=table(FIT_HEAD, [fit_row(*one) for one in found]),
        constants=constants_table(constants),
        eigen_now=EIGEN,
        product=constants.product,
        size=PRODUCT,
        left_out=f"Left out:\n\n{said}" if said else "None was left out.",
        points=table(HEAD, costs_rows),
        memory=table(MEMORY_HEAD, memory),
        counted=table(COUNTED[0], COUNTED[1:]),
        held=held(),
        plan=plan(constants, overhead_by_counted),
        **options,
    )


def _megabytes(size):
    return f"{size / 1e6:g} MB"


def main(arguments=None):
    """Measure, print, and write the page if asked.

    Args:
        arguments: List of the command line's arguments, those of the process if not given.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3, help="of each point, or more")
    parser.add_argument("--only", choices=PANELS, help="measure what grows in this way")
    parser.add_argument("--quick", action="store_true", help="few points, to try the command")
    parser.add_argument("--write", type=Path, help="Markdown page to write")
    options = parser.parse_args(arguments)
    begin = time.monotonic()
    constants = measured_constants(QUICK_SIZES if options.quick else EIGENVALUE_SIZES)
    print(constants_table(constants), flush=True)
    found, left_out, memory = {}, [], []

    def leave_out(sentence):
        left_out.append(sentence)
        print(f"Left out: {sentence}", flush=True)

    print(" | ".join(HEAD))
    for panel, curves in PANELS.items():
        if options.only not in (None, panel):
            continue
        found[panel] = []
        for whole in curves:
            curve = replace(whole, values=whole.values[: QUICK_POINTS if options.quick else None])
            points = []
            for new in measured(panel, curve, constants, options.seconds, leave_out):
                print(" | ".join(map(str, row(panel, curve, new))), flush=True)
                points.append(new)
            found[panel].append((curve, points))
            print("fit: ", " | ".join(map(str, fit_row(panel, curve, points))), flush=True)
    if not options.write:
        return
    folder = options.write.parent
    figure(found).savefig(folder / "images" / "scale.png", dpi=95)
    triples = [(panel, curve, points) for panel, both in found.items() for curve, points in both]
    with (folder / "scale.csv").open("w", newline="", encoding="utf-8") as file:
        every = [row(panel, curve, each) for panel, curve, points in triples for each in points]
        csv.writer(file).writerows([HEAD, *every])
    for triple in triples:
        for new in memory_rows(*triple):
            print(" | ".join(map(str, new)), flush=True)
            memory.append(new)
    said = {"seconds": f"{options.seconds:g}", "write": options.write}
    said["minutes"] = (time.monotonic() - begin) / 60
    text = page(triples, left_out, memory, constants, **said)
    options.write.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
