"""What is trained to be timed: networks of each kind, on random data of real shapes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_spectral.neuro.models import bilstm, cnn1d, cnn3d, mlp, transformer

SERIES = (296, 116)
"""Time points and regions of a resting-state scan, in the atlas of 116 regions."""
VOLUME = (48, 56, 48)


@dataclass(frozen=True)
class Workload:
    """A network, and batches for it.

    Attributes:
        network: Function that returns a plain functional `keras.Model` with a softmax of 2 classes.
        shape: Shape of one example.
        batch: Examples of a batch.
        steps: Steps of an epoch, a multiple of 16.
    """

    network: Callable[[], Any]
    shape: tuple
    batch: int
    steps: int

    def tensors(self):
        """Return input and output tensors of the network, initialised from one seed."""
        keras.utils.set_random_seed(0)
        network = self.network()
        return network.inputs[0], network.outputs[0]

    def data(self, steps):
        """Return random inputs, targets and two groups of `steps` batches."""
        rng = np.random.default_rng(0)
        n = steps * self.batch
        x = rng.standard_normal((n, *self.shape), dtype="float32")
        return x, rng.integers(0, 2, n), rng.choice(["a", "b"], n)


def _mlp(inputs, width, depth, batch, steps):
    return Workload(lambda: mlp(inputs, 2, (width,) * depth, dropout=0.0), (inputs,), batch, steps)


def _of_series(network, **options):
    return Workload(lambda: network(*SERIES, 2, **options), SERIES, batch=32, steps=16)


WORKLOADS = {
    "MLP 378-128x3-2": _mlp(378, 128, 3, batch=32, steps=192),
    "MLP 1378-128x3-2": _mlp(1378, 128, 3, batch=32, steps=192),
    "MLP 1378-512x3-2": _mlp(1378, 512, 3, batch=32, steps=96),
    "MLP 1024x4": _mlp(1024, 1024, 4, batch=64, steps=48),
    "BiLSTM": _of_series(bilstm),
    "Transformer": _of_series(transformer, width=128, heads=4, feed_forward=512),
    "1D CNN": _of_series(cnn1d),
    "3D CNN": Workload(lambda: cnn3d(VOLUME, 2), (*VOLUME, 1), batch=8, steps=16),
}
