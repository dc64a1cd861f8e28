"""What looking costs: training with spectra as a ratio to plain `fit`, in one process.

    python -m benchmarks.overhead [--steps 150] [--repeats 7] [--write docs/benchmarks.md]

Plain and watched training take turns within each repeat, so a machine whose speed drifts slows
both. Figures are medians over repeats; the spread is the range of the middle half.
"""

import argparse
import os
import platform
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

import keras_spectral as ks

CASES = {
    "plain keras.Model": None,
    "every step": ks.Spectra(every=1),
    "every 16 steps": ks.Spectra(every=16),
}


@dataclass(frozen=True)
class Workload:
    """An MLP and its batch."""

    inputs: int
    width: int
    depth: int
    outputs: int
    batch: int

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
    Workload(378, 128, 3, 2, 32),
    Workload(1378, 512, 3, 2, 32),
    Workload(1024, 1024, 4, 2, 64),
)


def trainer(workload, settings, steps):
    """Return a function that trains `steps` steps and returns milliseconds per step."""
    x, y, groups = workload.data(steps)
    if settings is None:
        model, extra, options = keras.Model(*workload.tensors()), {}, {}
    else:
        model, extra = ks.SpectralModel(*workload.tensors()), {"groups": groups}
        options = {"spectra": settings}
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"], **options)

    def train():
        begin = time.perf_counter()
        model.fit(x, y, batch_size=workload.batch, verbose=0, **extra)
        return (time.perf_counter() - begin) / steps * 1e3

    return train


def measured(workload, steps, repeats):
    """Return milliseconds per step, `{case: [repeat]}`, cases taking turns."""
    trainers = {case: trainer(workload, settings, steps) for case, settings in CASES.items()}
    for train in trainers.values():
        train()
    times = {case: [] for case in CASES}
    for _ in range(repeats):
        for case, train in trainers.items():
            times[case].append(train())
    return times


def rows(workload, times):
    """Return table rows: case, median milliseconds, median ratio to plain, spread of the ratio."""
    plain = times["plain keras.Model"]
    for case, values in times.items():
        ratios = [value / base for value, base in zip(values, plain, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        milliseconds = f"{statistics.median(values):.2f}"
        yield [str(workload), case, milliseconds, f"{middle:.2f}", f"{low:.2f}–{high:.2f}"]


def table(all_rows):
    """Return a Markdown table."""
    head = ["workload", "case", "ms per step", "ratio to plain", "middle half"]
    lines = [head, ["---"] * len(head), *all_rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def machine():
    """Return a line about the machine and the versions."""
    return (
        f"{os.cpu_count()} CPU cores ({platform.machine()}), Python {platform.python_version()}, "
        f"TensorFlow {tf.__version__}, Keras {keras.__version__}, keras_spectral {ks.__version__}"
    )


def main():
    """Measure, print, and write the page if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=150, help="steps per timed fit")
    parser.add_argument("--repeats", type=int, default=9, help="timed fits per case")
    parser.add_argument("--write", type=Path, help="Markdown page to write")
    options = parser.parse_args()
    found = []
    for workload in WORKLOADS:
        new = list(rows(workload, measured(workload, options.steps, options.repeats)))
        print(table(new), flush=True)
        found += new
    if options.write:
        page = f"# What looking costs\n\nMade by `make bench`. {machine()}.\n\n"
        about = "Two groups and `all`, three quantities. Medians; cases take turns.\n\n"
        options.write.write_text(page + about + table(found) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
