"""The overhead of recording one layer of each kind, in milliseconds of a training step.

    python -m benchmarks.rules [--steps 30] [--repeats 5] [--write docs/benchmarks-rules.md]

A plain model, one whose activations and adjoints are captured at every step and thrown away, and
one recorded at every step take turns within each repeat. *Capture* is captured minus plain,
*spectra* is recorded minus captured.
"""

import argparse
import contextlib
import statistics
import unittest.mock
from pathlib import Path

import keras
import numpy as np

import keras_spectral as ks
from benchmarks.page import machine, table
from benchmarks.untuned import timed_fit
from keras_spectral.recorder import SpectralLogger

L = keras.layers

LAYERS = {
    "Dense 1024": (lambda: L.Dense(1024, activation="relu"), (1024,), 32),
    "Dense 128 on 100 tokens": (lambda: L.Dense(128), (100, 128), 16),
    "MultiHeadAttention 4 x 32": (lambda: _attention(L.MultiHeadAttention(4, 32)), (100, 128), 16),
    "Conv1D 64, kernel 5": (lambda: L.Conv1D(64, 5), (296, 116), 16),
    "Conv2D 32, kernel 3": (lambda: L.Conv2D(32, 3), (32, 32, 16), 16),
    "Conv3D 8, kernel 3": (lambda: L.Conv3D(8, 3), (24, 28, 24, 4), 4),
    "Conv2DTranspose 16, kernel 3": (lambda: L.Conv2DTranspose(16, 3, strides=2), (16, 16, 32), 16),
    "DepthwiseConv2D, kernel 3": (lambda: L.DepthwiseConv2D(3), (32, 32, 16), 16),
    "SeparableConv2D 32, kernel 3": (lambda: L.SeparableConv2D(32, 3), (32, 32, 16), 16),
    "SimpleRNN 64": (lambda: L.SimpleRNN(64), (100, 116), 16),
    "LSTM 64": (lambda: L.LSTM(64), (100, 116), 16),
    "GRU 64": (lambda: L.GRU(64), (100, 116), 16),
    "Embedding 5000 to 64": (lambda: L.Embedding(5000, 64), (100,), 16),
    "LayerNormalization": (lambda: L.LayerNormalization(), (100, 128), 16),
    "BatchNormalization": (lambda: L.BatchNormalization(), (32, 32, 16), 16),
    "ConvLSTM1D 8 (generic)": (lambda: L.ConvLSTM1D(8, 3), (20, 30, 4), 16),
}
"""Layer, shape of one input, examples of a batch."""

PLAIN, CAPTURED, RECORDED = CASES = "plain", "captured", "recorded"

HEAD = ["layer", "input", "plain step", "capture", "spectra", "ratio, every step"]


def _attention(layer):
    return lambda x: layer(x, x)


def trainer(name, case, steps):
    """Return a function that trains a layer and returns milliseconds per step.

    Args:
        name: Key of `LAYERS`.
        case: One of `CASES`.
        steps: Steps of an epoch.
    """
    make, shape, batch = LAYERS[name]
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    tokens = name.startswith("Embedding")
    inputs = keras.Input(shape, dtype="int32" if tokens else "float32")
    outputs = L.GlobalAveragePooling1D()(L.Reshape((-1, 1))(make()(inputs)))
    n = steps * batch
    x = rng.integers(0, 5000, (n, *shape)) if tokens else rng.standard_normal((n, *shape))
    x, y = x.astype("int32" if tokens else "f"), rng.standard_normal((n, 1)).astype("f")
    plain = case == PLAIN
    model = (keras.Model if plain else ks.SpectralModel)(inputs, outputs)
    model.compile("adam", "mse")
    extra = {} if plain else {"groups": rng.choice(["a", "b"], n)}

    def train():
        with _thrown_away() if case == CAPTURED else contextlib.nullcontext():
            return timed_fit(model, x, y, batch_size=batch, verbose=0, **extra) / steps * 1e3

    return train


def _thrown_away():
    return unittest.mock.patch.object(SpectralLogger, "update_state")


def measured(name, steps, repeats):
    """Return a table row of one layer: medians over repeats, in milliseconds."""
    trainers = [trainer(name, case, steps) for case in CASES]
    for train in trainers:
        train()
    times = np.array([[train() for train in trainers] for _ in range(repeats)])
    plain = statistics.median(times[:, 0])
    capture = statistics.median(times[:, 1] - times[:, 0])
    spectra = statistics.median(times[:, 2] - times[:, 1])
    ratio = statistics.median(times[:, 2] / times[:, 0])
    _, shape, batch = LAYERS[name]
    size = "x".join(map(str, (batch, *shape)))
    return [name, size, f"{plain:.2f}", f"{capture:.2f}", f"{spectra:.2f}", f"{ratio:.2f}"]


PAGE = """\
# The overhead, layer by layer

Made by `python -m benchmarks.rules --steps {steps} --repeats {repeats} --write {write}`.
{machine}.

Milliseconds of a training step of a model of one layer (Adam, mean squared error). *Capture*: steps
return activations and adjoints, which are thrown away. *Spectra*: those of two groups and `all`,
three quantities, every step, exact.
Medians over {repeats} repeats of {steps} steps in which the three take turns; a difference below
zero is the noise of the machine.

{table}

The spectrum of an activation on the side of its features needs `rows · i²` operations, where the
layer needs `3 · rows · i · o`: many rows and many features (the patches of a convolution) take the
most time. The generic rule differentiates the layer once more for the batch and for every group.
"""


def main(arguments=None):
    """Measure, print, and write the page if asked.

    Args:
        arguments: List of the command line's arguments, those of the process if not given.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=30, help="steps per timed fit")
    parser.add_argument("--repeats", type=int, default=5, help="timed fits per case")
    parser.add_argument("--only", default="", help="measure the layers whose names hold this")
    parser.add_argument("--write", type=Path, help="Markdown page to write")
    options = parser.parse_args(arguments)
    found = []
    for name in LAYERS:
        if options.only in name:
            found.append(measured(name, options.steps, options.repeats))
            print("  ".join(found[-1]), flush=True)
    if options.write:
        page = PAGE.format(machine=machine(), table=table(HEAD, found), **vars(options))
        options.write.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
