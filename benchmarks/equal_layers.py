"""Networks of equal layers, whose size grows in one way at a time, and their training.

    python -m benchmarks.equal_layers recorded 16 layers=2 width=512 examples=32 groups=2

trains one in a process of its own, here of 16 steps, and prints its peak resident memory in bytes.
"""

import os
import sys
from dataclasses import asdict, dataclass

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import keras_spectral as ks
from benchmarks.memory import peak_resident
from benchmarks.training import MEMORY_EPOCHS, last_number
from benchmarks.untuned import timed_fit

PLAIN, RECORDED = "plain", "recorded"


@dataclass(frozen=True)
class Size:
    """Dense layers of one width, and a batch for them.

    Attributes:
        layers: Number of layers.
        width: Features that go into each layer, and come out.
        examples: Examples of a batch.
        positions: Rows of each example, as tokens are.
        groups: Groups, of equal size in every batch, which they divide.
    """

    layers: int = 2
    width: int = 256
    examples: int = 32
    positions: int = 1
    groups: int = 2

    @property
    def rows(self):
        """Rows of each matrix."""
        return self.examples * self.positions

    @property
    def step_operations(self):
        """Multiplications of a plain step: forward, and backward to weights and to inputs."""
        return 3 * self.layers * self.rows * self.width**2

    def tensors(self):
        """Return input and output tensors of the network, initialised from one seed."""
        keras.utils.set_random_seed(0)
        inputs = keras.Input((self.width,) if self.positions == 1 else (self.positions, self.width))
        x = inputs
        for _ in range(self.layers):
            x = keras.layers.Dense(self.width, activation="tanh")(x)
        return inputs, x

    def data(self, steps):
        """Return random inputs, targets that nobody reads, and groups of `steps` batches."""
        n = steps * self.examples
        x = np.random.default_rng(0).standard_normal((n, *self.tensors()[0].shape[1:]), "float32")
        return x, np.zeros(n, "float32"), np.arange(n) % self.groups


def trainer(size, case):
    """Return a function that trains on some data and returns milliseconds per step.

    By plain gradient descent, whose step is the cheapest there is. Time ends when all spectra are
    in the log.

    Args:
        size: `Size`.
        case: `PLAIN` or `RECORDED`, where every step is recorded.
    """
    recorded = case == RECORDED
    model = (ks.SpectralModel if recorded else keras.Model)(*size.tensors())
    model.compile(keras.optimizers.SGD(1e-3), _energy, **({"spectra": 1} if recorded else {}))

    def train(data):
        x, y, groups = data
        extra = {"groups": groups} if recorded else {}
        options = {"batch_size": size.examples, "shuffle": False, "verbose": 0}
        return timed_fit(model, x, y, **options, **extra) * size.examples / len(x) * 1e3

    return train


def _energy(_, outputs):
    return keras.ops.mean(keras.ops.square(outputs), axis=-1)


def peak_bytes(size, case, steps):
    """Return the peak resident memory of a process that trains, in bytes.

    Args:
        size: `Size`.
        case: `PLAIN` or `RECORDED`.
        steps: Steps of an epoch, of which there are `MEMORY_EPOCHS`.
    """
    given = [f"{name}={value}" for name, value in asdict(size).items()]
    return last_number("benchmarks.equal_layers", case, steps, *given)


def main(case, steps, *given):
    """Train, and print the peak."""
    size = Size(**{name: int(value) for name, value in (each.split("=") for each in given)})
    train, data = trainer(size, case), size.data(int(steps))
    for _ in range(MEMORY_EPOCHS):
        train(data)
    print(peak_resident())


if __name__ == "__main__":
    main(*sys.argv[1:])
