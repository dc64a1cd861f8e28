"""What `method="auto"` chooses, against every other way to the same spectra.

    python -m benchmarks.choices [--repeats 3] [--only NAME] [--write docs/benchmarks-choices.md]

Training with spectra at every step, once for each way, which take turns within each repeat.
"""

import argparse
import contextlib
import math
import statistics
import unittest.mock
from pathlib import Path

import keras_spectral as ks
from benchmarks.page import machine, table
from benchmarks.training import CASES, TOP, trainer
from benchmarks.workloads import WORKLOADS
from keras_spectral.spectra import feature_gram, row_gram

MOST_ROWS = 2048
"""Rows of a batch of which the side of the rows is tried: more would take gigabytes, or hours."""

FEWEST_STEPS = 4
MILLISECONDS = 1000
"""Of a timed epoch, about."""

AUTO, ROWS, FEATURES, SVD, PART = "auto", "rows", "features", "svd", "subspace"

WAYS = {
    AUTO: 1,
    ROWS: 1,
    FEATURES: 1,
    SVD: ks.Spectra(method="svd"),
    PART: CASES[TOP],
}
"""What is recorded."""

EXACT = (ROWS, FEATURES, SVD)
"""Ways to the spectra of "auto"."""

TARGET = 1.3
"""Ratio of "auto" to the best of them that should not be exceeded."""

HEAD = ["workload", *WAYS, "auto, to the best", "target"]


@contextlib.contextmanager
def side(way):
    """Return a context in which plans are made that take one side, if the way is one.

    Args:
        way: Key of `WAYS`.
    """
    if way not in (ROWS, FEATURES):
        yield
        return

    def cost_of_rows(sizes):
        # Of equal costs the rows win.
        possible = way == ROWS and sizes.rows[0] <= MOST_ROWS
        return feature_gram.cost(sizes) if possible else math.inf

    with (
        unittest.mock.patch.object(row_gram, "cost", cost_of_rows),
        unittest.mock.patch.object(row_gram, "cost_of_gradient", cost_of_rows),
        unittest.mock.patch.object(feature_gram, "cost_of_each", return_value=math.inf),
    ):
        yield


def planned(name, way, steps):
    """Return a function that trains in some way and returns milliseconds per step, and these."""
    train = trainer(WORKLOADS[name], WAYS[way], steps)
    with side(way):
        train()
    return train, train()


def measured(name, repeats, milliseconds=MILLISECONDS):
    """Return milliseconds per step, `{way: median}`, ways taking turns."""
    trainers = {}
    for way in WAYS:
        train, each = planned(name, way, FEWEST_STEPS)
        steps = min(WORKLOADS[name].steps, round(milliseconds / each))
        trainers[way] = planned(name, way, steps)[0] if steps > FEWEST_STEPS else train
    times = {way: [] for way in WAYS}
    for _ in range(repeats):
        for way, train in trainers.items():
            times[way].append(train())
    return {way: statistics.median(values) for way, values in times.items()}


def row(name, times):
    """Return a table row, see `HEAD`."""
    ratio = times[AUTO] / min(times[way] for way in EXACT)
    return [name, *(f"{times[way]:.1f}" for way in WAYS), f"{ratio:.2f}", f"{TARGET}"]


PAGE = """\
# What "auto" chooses

Made by `python -m benchmarks.choices --repeats {repeats} --write {write}`.
{machine}.

Milliseconds of a training step with exact spectra at every step, two groups and `all`, three
quantities. Medians over {repeats} repeats in which the ways take turns. *auto*, the default, takes
Gram matrices of the rows or of the features, whichever an estimate says is cheaper for each matrix
(`spectra/plan.py`), or for each of its groups. *rows* takes the rows wherever a batch has no more
than {most_rows} of them, *features* always the features, *svd* is `method="svd"`: `tf.linalg.svd`
of the matrix itself.

{table}

*subspace* is `Spectra(top_k=16, method="subspace")`, for comparison: "auto" never chooses it, since
what it finds is near, not exact. And "auto" is "svd" for models that compute in float64, for their
digits, not for speed.
"""


def main(arguments=None):
    """Measure, print, and write the page if asked.

    Args:
        arguments: List of the command line's arguments, those of the process if not given.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=3, help="timed fits of each way")
    parser.add_argument("--only", default="", help="measure the workloads whose names hold this")
    parser.add_argument("--quick", action="store_true", help="short fits, to try the command")
    parser.add_argument("--write", type=Path, help="Markdown page to write")
    options = parser.parse_args(arguments)
    found = []
    for name in WORKLOADS:
        if options.only in name:
            times = measured(name, options.repeats, 0 if options.quick else MILLISECONDS)
            found.append(row(name, times))
            print("  ".join(found[-1]), flush=True)
    if options.write:
        page = PAGE.format(
            machine=machine(), most_rows=MOST_ROWS, table=table(HEAD, found), **vars(options)
        )
        options.write.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
