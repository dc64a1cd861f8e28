"""The overhead of recording: training with spectra as a ratio to plain `fit`, in one process.

    python -m benchmarks.overhead [--seconds 60] [--only NAME] [--write docs/benchmarks.md]

Plain and recorded training take turns within each repeat, so a machine whose speed drifts slows
both. Figures are medians over repeats; the spread is the range of the middle half.
"""

import argparse
import csv
import os
import statistics
import time
import timeit
from collections import Counter
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import keras_spectral as ks
from benchmarks.ablation import TITLE
from benchmarks.one_core import one_core
from benchmarks.page import machine, section, table, with_section
from benchmarks.training import (
    ALWAYS,
    CASES,
    NEVER,
    PLAIN,
    SOMETIMES,
    TOP,
    peak_bytes,
    trainer,
)
from benchmarks.workloads import WORKLOADS
from keras_spectral.solver import solving_thread
from keras_spectral.spectra.host import eigenvalues

TOGETHER = 8
"""Eigenvalue problems of one size that are timed together."""

FEWEST = 3
"""Timed fits per case, at least."""

TARGETS = {
    "MLP 378-128x3-2": {ALWAYS: 1.55, SOMETIMES: 1.05, NEVER: 1.03},
    "MLP 1378-128x3-2": {ALWAYS: 1.40, SOMETIMES: 1.04, NEVER: 1.03},
    "MLP 1378-512x3-2": {ALWAYS: 1.20, SOMETIMES: 1.02, NEVER: 1.01},
    "MLP 1024x4": {ALWAYS: 1.15, SOMETIMES: 1.02, NEVER: 1.01},
    "BiLSTM": {ALWAYS: 5.0, SOMETIMES: 1.28, NEVER: 1.02},
    "Transformer": {ALWAYS: 4.5, SOMETIMES: 1.25, NEVER: 1.02},
    "1D CNN": {ALWAYS: 5.0, SOMETIMES: 1.28, NEVER: 1.02},
    "3D CNN": {ALWAYS: 1.6, SOMETIMES: 1.05, NEVER: 1.01},
}
"""Ratios to plain that should not be exceeded."""

ERROR_STEPS = 12
"""Steps that a subspace follows before it is compared with the exact singular values."""

MEMORY_TARGETS = {NEVER: 1.02, ALWAYS: 1.10}
"""Ratios to the peak resident memory of plain training that should not be exceeded."""

QUICK = {"seconds": 0, "steps": 2, "fewest": 2}
"""What `--quick` gives `measured`: enough to see that all of it runs."""

HEAD = ["workload", "case", "repeats", "ms per step", "ratio", "middle half", "fastest", "target"]
PROFILE_HEAD = [
    "workload",
    "spectra",
    "of the largest",
    "plain step",
    "recorded step",
    "in training",
    "in the solving thread",
    "eigenvalues alone",
    "ratio at least",
]
ERROR_HEAD = [
    "workload",
    "spectra",
    "in a subspace",
    "error of sigma_1",
    "of sigma_16",
    "largest",
    "bound of sigma_1",
    "of sigma_16",
]
MEMORY_HEAD = ["workload", "plain, MB"]
MEMORY_HEAD += [head for case in MEMORY_TARGETS for head in (f"{case}, MB", "ratio", "target")]


def measured(name, seconds, steps=None, fewest=FEWEST, **options):
    """Return milliseconds per step, `{case: [repeat]}`, cases taking turns for some seconds.

    Args:
        name: Key of `WORKLOADS`.
        seconds: Of all repeats, or more.
        steps: Steps of a timed epoch, those of the workload if not given.
        fewest: Repeats, at least.
        **options: As `trainer` takes them.
    """
    workload, trainers = WORKLOADS[name], {}
    for case, spectra in CASES.items():
        trainers[case] = trainer(workload, spectra, steps or workload.steps, **options)
    for train in trainers.values():
        train()
    times = {case: [] for case in CASES}
    end = time.monotonic() + seconds
    while len(times[PLAIN]) < fewest or time.monotonic() < end:
        for case, train in trainers.items():
            times[case].append(train())
    return times


def rows(name, times):
    """Return table rows, see `HEAD`."""
    plain = times[PLAIN]
    for case, values in times.items():
        ratios = [value / base for value, base in zip(values, plain, strict=True)]
        low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75))
        milliseconds = f"{statistics.median(values):.2f}"
        spread, fastest = f"{low:.2f}–{high:.2f}", f"{min(values) / min(plain):.2f}"
        target = TARGETS[name].get(case)
        target = "" if target is None else f"{target:.2f}"
        yield [name, case, len(values), milliseconds, f"{middle:.2f}", spread, fastest, target]


def memory_row(name):
    """Return a table row, see `MEMORY_HEAD`."""
    plain = peak_bytes(name, PLAIN)
    cells = [name, f"{plain / 1e6:.0f}"]
    for case, target in MEMORY_TARGETS.items():
        size = peak_bytes(name, case)
        cells += [f"{size / 1e6:.0f}", f"{size / plain:.2f}", f"{target:.2f}"]
    return cells


def profile_row(name, times, steps=None):
    """Return where the processor time of one recorded step goes.

    Args:
        name: Key of `WORKLOADS`.
        times: As `measured` returns them.
        steps: As in `measured`.

    Returns:
        Table row, see `PROFILE_HEAD`. The ratio takes the eigenvalues alone into account.
    """
    steps = steps or WORKLOADS[name].steps
    plain, _ = _processor(trainer(WORKLOADS[name], CASES[PLAIN], steps), steps)
    with one_core():  # the solving thread's clock misses what helpers do
        recorded, thread = _processor(trainer(WORKLOADS[name], CASES[ALWAYS], steps), steps)
    number, largest, solving, longest = _eigenvalues_of(name)
    elapsed = statistics.median(times[PLAIN])
    least = max(elapsed, (plain + solving) / os.cpu_count(), longest) / elapsed
    parts = (plain, recorded, max(0.0, recorded - plain - thread), thread, solving)
    return [name, number, largest, *(f"{part:.1f}" for part in parts), f"{least:.2f}"]


def _processor(train, steps):
    """Return processor milliseconds per step: of the process, and of the thread that solves."""
    train()
    found = []
    for _ in range(FEWEST):
        before = _clocks()
        train()
        found.append((_clocks() - before) / steps * 1e3)
    return np.median(found, axis=0)


def _clocks():
    solver = solving_thread(os.getpid()).submit(time.thread_time).result()
    return np.array([time.process_time(), solver])


def _eigenvalues_of(name):
    """Return what the eigenvalue problems of a recorded step are, and take.

    Returns:
        The tuple `(number, largest, total, longest)`: number of spectra, singular values of the
        largest, and milliseconds on one idle core of all of them and of the longest.
    """
    workload = WORKLOADS[name]
    x, y, groups = workload.data(1)
    model = ks.SpectralModel(*workload.tensors())
    model.compile("adam", "sparse_categorical_crossentropy", spectra=1)
    model.fit(x, y, batch_size=workload.batch, groups=groups, verbose=0)
    sizes = Counter(model.spectral_log.rows["rank_bound"])
    rng = np.random.default_rng(0)
    one = {}
    with one_core():
        for d, number in sizes.items():
            rows = rng.standard_normal((min(number, TOGETHER), d, d))
            grams = rows @ rows.swapaxes(-1, -2)
            one[d] = _milliseconds(lambda: eigenvalues(grams)) / len(grams)  # noqa: B023
    total = sum(one[d] * number for d, number in sizes.items())
    return sum(sizes.values()), max(sizes), total, max(one.values())


def error_row(name):
    """Return how far a subspace is from the exact singular values, after some steps.

    Returns:
        Table row, see `ERROR_HEAD`, or `None` where every spectrum is exact.
    """
    workload = WORKLOADS[name]
    x, y, groups = workload.data(ERROR_STEPS)
    logs = []
    for spectra in (CASES[TOP], replace(CASES[TOP], method="gram")):
        model = ks.SpectralModel(*workload.tensors())
        model.compile("adam", "sparse_categorical_crossentropy", spectra=spectra)
        model.fit(x, y, batch_size=workload.batch, groups=groups, verbose=0, shuffle=False)
        logs.append(model.spectral_log.select(step=ERROR_STEPS - 1))
    found, exact = logs
    if "residual_norm" not in found.rows:
        return None
    followed = found.rows["residual_norm"].to_numpy() > 0
    first = exact.sigma[:, :1]
    errors, bounds = (
        (np.abs(part) / first)[followed] for part in (exact.sigma - found.sigma, found.sigma_error)
    )
    medians = [np.nanmedian(part[:, k]) for part in (errors, bounds) for k in (0, -1)]
    shown = [f"{value:.1e}" for value in (*medians[:2], np.nanmax(errors), *medians[2:])]
    return [name, len(followed), followed.sum(), *shown]


def _milliseconds(work):
    return min(timeit.repeat(work, number=1, repeat=5)) * 1e3


def figure(found):
    """Return a figure of the ratios, a row per workload, a tick at each target.

    Args:
        found: Table rows, see `HEAD`.
    """
    fig, axes = plt.subplots(1, 4, figsize=(12, 3.4), sharey=True, layout="constrained")
    names = list(dict.fromkeys(row[0] for row in found))
    for ax, case in zip(axes, (ALWAYS, TOP, SOMETIMES, NEVER), strict=True):
        chosen = [row for row in found if row[1] == case]
        for row in chosen:
            y = names.index(row[0])
            low, high = map(float, row[5].split("–"))
            ax.plot([low, high], [y, y], color="#0072B2", alpha=0.4, linewidth=4)
            ax.plot(float(row[4]), y, "o", color="#0072B2")
            if row[7]:
                ax.plot(float(row[7]), y, "|", color="#D55E00", markersize=14, markeredgewidth=2)
        ax.axvline(1, color="0.7", zorder=0)
        ax.set_xscale("log")
        ax.set_title(case)
        ax.set_xlabel("step, as a ratio to plain `fit`")
        ticks = (
            (0.8, 0.9, 1, 1.1, 1.2, 1.5, 2, 3) if ax.get_xlim()[1] < 4 else (1, 2, 5, 10, 20, 50)
        )
        ticks = [tick for tick in ticks if ax.get_xlim()[0] < tick < ax.get_xlim()[1]]
        ax.set_xticks(ticks, [f"{t:g}" for t in ticks])
        ax.minorticks_off()
    axes[0].set_yticks(range(len(names)), names)
    axes[0].invert_yaxis()
    return fig


PAGE = """\
# The overhead of recording

Made by `python -m benchmarks.overhead --seconds {seconds} --write {write}` (`make bench`).
{machine}.

![Ratios to plain training of every workload: points are medians, bars the middle half of the
repeats, ticks the targets](images/overhead.png)

Two groups and `all`, three quantities, networks on random data of real shapes
(`benchmarks/workloads.py`). Medians over repeats of an epoch, in which the cases take turns, from
its begin until `fit` returns, when all spectra are in the log. The ratio to plain is taken within
each repeat; *middle half* is its spread, *fastest* the ratio of the fastest repeats, which other
load on the machine disturbs least. Before its first epoch a `fit` with spectra describes model and
data for the log, a few milliseconds once, which are not counted. Tuning by tf.data is turned off:
the end of a `fit`, plain or not, may wait for it as long as all of the `fit` took
(`benchmarks/untuned.py`). The same as a table to compute with: [overhead.csv](overhead.csv).

{table}

## Memory

Peak resident memory of a process that trains three epochs, TensorFlow and the data included.
Activations and adjoints of a recorded step live until they are reduced to statistics, beside the
next step; plain training forgets each as it goes. Where no step is due, the function that runs is
that of plain training.

{memory}

## Where it goes

*No step due* is the overhead of a schedule in the steps it passes over: groups that travel with
their examples, and a question to the schedule before each step. The step itself is that of a plain
model, compiled as Keras compiles it.

A recorded step runs another compiled function, which returns activations and adjoints. A thread
reduces them to Gram matrices, and solves an eigenvalue problem for each matrix and group, while
training goes on. Processor milliseconds of one step, on all cores together: *in training* is what a
recorded step adds to a plain one, outside of the solving thread, filter gradients of convolutions
included, which TensorFlow computes for it. *In the solving thread* is as one core alone does it,
and *eigenvalues alone* is on one idle core:

{profile}

The time of eigenvalues grows as the cube of the smaller side of a matrix. *Ratio at least* is what
a step would take if all else took no time: the longest of a plain step, of the eigenvalues of the
largest matrix, and of the processor time of both together, divided by the cores. So exact spectra
at every step have a small overhead where the smaller side of every matrix is a batch of some tens,
and take as long as many steps of training where it is hundreds of features or rows, as in a first
layer that sees windows or patches. Choose `layers`, or a schedule, which divides the overhead: with
every 16th step it is (15 x *no step due* + *every step*) / 16. Or the largest values alone:

## How near the largest values are

*every step, top_k=16* is `Spectra(top_k=16, method="subspace")`: matrices of which all singular
values would take longer are known in a subspace that follows training
([how](method.md#the-largest-alone)). After {error_steps} steps, as parts of the exact sigma_1;
medians over spectra in a subspace, but for the largest error of any value. Bounds are what the log
itself can promise (`log.sigma_error`).

{errors}

Inputs here are white noise, whose flat spectrum is the worst case: the largest errors are those of
activations of first layers. Deeper layers, adjoints and gradients have spectra that fall.

## Cores

Where training keeps every core busy, work in another thread delays it, and a thread that delays one
of two cores delays both, since each operation of training waits for its slower half.

The products of the thread are those of NumPy's BLAS, and its kernels are named above. OpenBLAS may
take those of an older processor: of Haswell on one by AMD that has AVX-512 (`avx512f`). There the
environment variable `OPENBLAS_CORETYPE=SkylakeX` makes products faster.

The overhead of a layer of each kind: [benchmarks-rules.md](benchmarks-rules.md).
"""


def written(path, page):
    """Write a page, with the section of another benchmark that the old page has.

    Args:
        path: Path of the page.
        page: Its new text.
    """
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    ablation = section(before, TITLE)
    path.write_text(with_section(page, ablation) if ablation else page, encoding="utf-8")


def main(arguments=None):
    """Measure, print, and write the page if asked.

    Args:
        arguments: List of the command line's arguments, those of the process if not given.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=60, help="of each workload, or more")
    parser.add_argument("--only", default="", help="measure the workloads whose names hold this")
    parser.add_argument("--quick", action="store_true", help="few short fits, to try the command")
    parser.add_argument("--write", type=Path, help="Markdown page to write")
    options = parser.parse_args(arguments)
    names = [name for name in WORKLOADS if options.only in name]
    given = QUICK if options.quick else {"seconds": options.seconds}
    found, times = [], {}
    for name in names:
        times[name] = measured(name, **given)
        new = list(rows(name, times[name]))
        print(table(HEAD, new), flush=True)
        found += new
    if options.write:
        memory = [memory_row(name) for name in names]
        profile = [profile_row(name, times[name], given.get("steps")) for name in names]
        errors = [row for row in map(error_row, names) if row]
        page = PAGE.format(
            error_steps=ERROR_STEPS,
            errors=table(ERROR_HEAD, errors),
            machine=machine(),
            table=table(HEAD, found),
            memory=table(MEMORY_HEAD, memory),
            profile=table(PROFILE_HEAD, profile),
            **vars(options),
        )
        written(options.write, page)
        folder = options.write.parent
        figure(found).savefig(folder / "images" / "overhead.png", dpi=150)
        with (folder / "overhead.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([HEAD, *found])


if __name__ == "__main__":
    main()
