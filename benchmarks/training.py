"""Plain and recorded training of a workload, and the resident memory that either needs.

    python -m benchmarks.training "3D CNN" "every step"

trains in a process of its own and prints its peak resident memory in bytes.
"""

import os
import subprocess
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras

import keras_spectral as ks
from benchmarks.memory import peak_resident
from benchmarks.untuned import timed_fit
from benchmarks.workloads import WORKLOADS

PLAIN, NEVER, ALWAYS, TOP, SOMETIMES = (
    "plain keras.Model",
    "no step due",
    "every step",
    "every step, top_k=16",
    "every 16 steps",
)

CASES = {
    PLAIN: None,
    NEVER: 10**9,
    ALWAYS: 1,
    TOP: ks.Spectra(top_k=16, method="subspace"),
    SOMETIMES: 16,
}
"""What is recorded; `None` by a plain `keras.Model`."""

MEMORY_EPOCHS = 3
"""Of a training whose memory is read."""


def trainer(workload, spectra, steps, jit_compile="auto"):
    """Return a function that trains `steps` steps and returns milliseconds per step.

    Args:
        workload: `Workload`.
        spectra: As in `compile(spectra=…)`; `None` for a plain `keras.Model`.
        steps: Number of steps, an epoch.
        jit_compile: As in `compile`. "auto" is XLA on a GPU only.
    """
    x, y, groups = workload.data(steps)
    if spectra is None:
        model, extra, options = keras.Model(*workload.tensors()), {}, {}
    else:
        model, extra = ks.SpectralModel(*workload.tensors()), {"groups": groups}
        options = {"spectra": spectra}
    model.compile(
        "adam",
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=jit_compile,
        **options,
    )

    def train():
        seconds = timed_fit(model, x, y, batch_size=workload.batch, verbose=0, **extra)
        return seconds / steps * 1e3

    return train


def peak_bytes(name, case):
    """Return the peak resident memory of a process that trains, in bytes.

    Args:
        name: Key of `WORKLOADS`.
        case: Key of `CASES`.
    """
    return last_number("benchmarks.training", name, case)


def last_number(module, *arguments):
    """Return the last number that a module prints, run in a process of its own.

    Args:
        module: Name of the module.
        *arguments: What its command line takes.
    """
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


if __name__ == "__main__":
    chosen = WORKLOADS[sys.argv[1]]
    train = trainer(chosen, CASES[sys.argv[2]], chosen.steps)
    for _ in range(MEMORY_EPOCHS):
        train()
    print(peak_resident())
