"""Recording at every step leaves memory flat."""

import subprocess
import sys

GROWTH = 16_000_000
"""Bytes of resident memory, over the first two thousand steps: room for the newest part of the log
kept in memory (`log.spool.MEMORY_LIMIT`, three times while it moves), for what waits for the
solving thread (`solver.BACKLOG_BYTES`) or to be solved together (`spectra.pile.TOGETHER_BYTES`,
several times while it is), and for what waits to be logged (`HANDED_OUT_BYTES`). Plain Keras grows
by 7 MB here.
"""

LATE_GROWTH = 3_000_000
"""Bytes, over a fourth thousand steps, which write 10 MB of log: by then all of that is there, also
on a busy machine, where it comes later."""

SCRIPT = """
import keras, numpy as np, keras_spectral as ks

inputs = keras.Input((378,))
x = inputs
for width in (128, 128, 128):
    x = keras.layers.Dense(width, activation="relu")(x)
model = ks.SpectralModel(inputs, keras.layers.Dense(2, activation="softmax")(x))
model.compile("adam", "sparse_categorical_crossentropy", spectra=1)
rng = np.random.default_rng(0)
data = rng.standard_normal((6400, 378)).astype("f"), rng.integers(0, 2, 6400)
groups = rng.choice(["a", "b"], 6400)

def resident():
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024

class Watch(keras.callbacks.Callback):
    seen = []
    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(resident())

model.fit(*data, groups=groups, epochs=20, batch_size=32, verbose=0, callbacks=[Watch()])
print(*Watch.seen)
assert len(model.spectral_log.steps) == 4000
"""


def test_recording_every_step_leaves_memory_flat_after_two_hundred_steps():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True
    )
    seen = [int(value) for value in done.stdout.split()]
    assert len(seen) == 20
    assert max(seen[1:10]) - seen[0] < GROWTH, seen
    assert seen[19] - seen[14] < LATE_GROWTH, seen
