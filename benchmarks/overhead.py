"""What looking costs: training with spectra as a ratio to plain `fit`, in one process.

    python -m benchmarks.overhead [--steps 200] [--seconds 120] [--write docs/benchmarks.md]

Plain and watched training take turns within each repeat, so a machine whose speed drifts slows
both. Figures are medians over repeats; the spread is the range of the middle half.
"""

import argparse
import os
import platform
import statistics
import time
import timeit
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
import threadpoolctl

import keras_spectral as ks
from keras_spectral.spectra.eigen import eigenvalues

PLAIN, NEVER, KEPT, ALWAYS, SOMETIMES = CASES = (
    "plain keras.Model",
    "no step due",
    "every step, kept but not solved",
    "every step",
    "every 16 steps",
)

SETTINGS = {NEVER: 10**9, KEPT: 1, ALWAYS: 1, SOMETIMES: 16}
"""`compile(spectra=…)` of each case that records."""

FEWEST = 9
"""Timed fits per case, at least."""

TARGET_SOMETIMES = 1.05
"""Ratio to plain that recording every 16 steps should not exceed."""


@dataclass(frozen=True)
class Workload:
    """An MLP, its batch, and the ratio to plain that recording every step should not exceed."""

    inputs: int
    width: int
    depth: int
    outputs: int
    batch: int
    target: float

    def __str__(self):
        return f"MLP {self.inputs}-{self.width}x{self.depth}-{self.outputs}, batch {self.batch}"

    def tensors(self):
        """Return freshly initialised input and output tensors."""
        keras.utils.set_random_seed(0)
        inputs = keras.Input((self.inputs,))
        x = inputs
        for _ in range(self.depth):
            x = keras.layers.Dense(self.width, activation="relu")(x)
        return inputs, keras.layers.Dense(self.outputs, activation="softmax")(x)

    def data(self, steps):
        """Return `steps` batches of random inputs, targets and two groups."""
        rng = np.random.default_rng(0)
        n = steps * self.batch
        x = rng.standard_normal((n, self.inputs)).astype("float32")
        return x, rng.integers(0, self.outputs, n), rng.choice(["a", "b"], n)


WORKLOADS = (
    Workload(378, 128, 3, 2, 32, target=1.7),
    Workload(1378, 512, 3, 2, 32, target=1.25),
    Workload(1024, 1024, 4, 2, 64, target=1.15),
)


def trainer(workload, case, steps):
    """Return a function that trains `steps` steps and returns milliseconds per step."""
    x, y, groups = workload.data(steps)
    if case == PLAIN:
        model, extra, options = keras.Model(*workload.tensors()), {}, {}
    else:
        model, extra = ks.SpectralModel(*workload.tensors()), {"groups": groups}
        options = {"spectra": SETTINGS[case]}
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"], **options)
    if case == KEPT:
        model.spectral_logger._solver.submit = lambda *records: None

    def train():
        begin = time.perf_counter()
        model.fit(x, y, batch_size=workload.batch, verbose=0, **extra)
        return (time.perf_counter() - begin) / steps * 1e3

    return train


def measured(workload, steps, seconds):
    """Return milliseconds per step, `{case: [repeat]}`, cases taking turns for some seconds."""
    trainers = {case: trainer(workload, case, steps) for case in CASES}
    for train in trainers.values():
        train()
    times = {case: [] for case in CASES}
    end = time.monotonic() + seconds
    while len(times[PLAIN]) < FEWEST or time.monotonic() < end:
        for case, train in trainers.items():
            times[case].append(train())
    return times


def rows(workload, times):
    """Return table rows, see `HEAD`."""
    plain = times[PLAIN]
    targets = {ALWAYS: f"{workload.target:.2f}", SOMETIMES: f"{TARGET_SOMETIMES:.2f}"}
    for case, values in times.items():
        ratios = [value / base for value, base in zip(values, plain, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        milliseconds = f"{statistics.median(values):.2f}"
        spread, fastest = f"{low:.2f}–{high:.2f}", f"{min(values) / min(plain):.2f}"
        target = targets.get(case, "")
        ratio = f"{middle:.2f}"
        yield [str(workload), case, len(values), milliseconds, ratio, spread, fastest, target]


HEAD = ["workload", "case", "repeats", "ms per step", "ratio", "middle half", "fastest", "target"]


def table(head, all_rows):
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *all_rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def arithmetic_milliseconds(workload):
    """Return what the spectra of one step need, in milliseconds on one idle core.

    Returns:
        `(products, eigenvalues)`: the Gram matrices of all activations and adjoints in float64, and
        the eigenvalues of all matrices, of the batch and of two groups of half its size.
    """
    n, rng = workload.batch, np.random.default_rng(0)
    # The last layer's two outputs are too few to count.
    widths = [workload.inputs] + [workload.width] * 2 * workload.depth
    factors = [rng.standard_normal((n, width)).astype("float32") for width in widths]
    wide = [factor.astype(float) for factor in factors]
    grams = np.stack([rows @ rows.T for rows in wide])
    n_matrices = 3 * workload.depth + 1
    stacks = [np.resize(grams[:, :d, :d], (n_matrices, d, d)) for d in (n, n // 2, n // 2)]
    with threadpoolctl.threadpool_limits(1, "blas"):
        products = _milliseconds(lambda: [(f := rows.astype(float)) @ f.T for rows in factors])
        problems = _milliseconds(lambda: [eigenvalues(stack) for stack in stacks])
    return products, problems


def _milliseconds(work):
    return min(timeit.repeat(work, number=5, repeat=20)) / 5 * 1e3


def machine():
    """Return a line about the machine and the versions."""
    return (
        f"{os.cpu_count()} CPU cores ({platform.machine()}), Python {platform.python_version()}, "
        f"TensorFlow {tf.__version__}, Keras {keras.__version__}, keras_spectral {ks.__version__}"
    )


PAGE = """\
# What looking costs

Made by `python -m benchmarks.overhead --steps {steps} --seconds {seconds} --write {write}`.
{machine}.

Two groups and `all`, three quantities. Medians over repeats of {steps} steps, in which the cases
take turns. The ratio to plain is taken within each repeat; *middle half* is its spread,
*fastest* the ratio of the fastest repeats, which other load on the machine disturbs least.

{table}

## Where it goes

*No step due* is what a schedule costs in the steps it passes over: groups that travel with their
examples, a branch not taken, two counters. In the first network that is one more array in the data
pipeline, and some 15 operations beside the 360 of its step with Adam. A plain step chosen by the
host would save these, and cost the tracing of a second graph, half a second of training.

*Kept but not solved* is what happens inside a recorded step: activations and adjoints are watched
and put into a queue. What *every step* costs beyond that is the arithmetic of exact spectra, in one
thread beside training: Gram matrices in float64, and an eigenvalue problem for each matrix and
group. That needs, on an idle core:

{floors}

Where training keeps every core busy there is nowhere to hide that work, and a thread that delays
one of two cores delays both, since each operation of training waits for its slower half. So where
the target at every step is missed, it is for exact arithmetic on cores that training needs too. A
schedule (`spectra=16`) divides it: what is left is (15 x *no step due* + *every step*) / 16, which
on a step of a millisecond is more than 1.05.
"""


def main():
    """Measure, print, and write the page if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200, help="steps per timed fit")
    parser.add_argument("--seconds", type=int, default=120, help="of each workload, or more")
    parser.add_argument("--write", type=Path, help="Markdown page to write")
    options = parser.parse_args()
    found = []
    for workload in WORKLOADS:
        new = list(rows(workload, measured(workload, options.steps, options.seconds)))
        print(table(HEAD, new), flush=True)
        found += new
    if options.write:
        floors = []
        for workload in WORKLOADS:
            products, eigenvalues = arithmetic_milliseconds(workload)
            floors.append([str(workload), f"{products:.2f}", f"{eigenvalues:.2f}"])
        page = PAGE.format(
            machine=machine(),
            table=table(HEAD, found),
            floors=table(["workload", "products, ms per step", "eigenvalues, ms per step"], floors),
            **vars(options),
        )
        options.write.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
