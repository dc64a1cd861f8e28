"""Recording at every step leaves memory flat."""

import subprocess
import sys

import pytest

GROWTH = 9_000_000
"""Bytes of resident memory over steps 200 to 2,000, beyond those by which a plain model grows: room
for the newest part of the log kept in memory (`log.spool.MEMORY_LIMIT`, three times while it
moves), for what waits for the solving thread (`solver.BACKLOG_BYTES`) and to be solved together
(`spectra.pile.TOGETHER_BYTES`). On a busy machine more waits.
"""

GROWTH_OF_PERMUTATIONS = 6_000_000
"""Bytes that permutations add: the newest part of their table, three times while it moves, and the
spectra of their groups that wait for it; at times some of that comes later. If the table stayed,
it would be 45 MB over steps 200 to 2,000, and 25 MB over the fourth thousand.
"""

LATE_GROWTH = 3_000_000
"""Bytes, over a fourth thousand steps, which write 10 MB of log: by then all of that is there."""

SCRIPT = """
import sys, keras, numpy as np, keras_spectral as ks

watched, epochs = sys.argv[1] == "watched", int(sys.argv[2])

inputs = keras.Input((378,))
x = inputs
for width in (128, 128, 128):
    x = keras.layers.Dense(width, activation="relu")(x)
outputs = keras.layers.Dense(2, activation="softmax")(x)
model = (ks.SpectralModel if watched else keras.Model)(inputs, outputs)
model.compile("adam", "sparse_categorical_crossentropy", **({"spectra": 1} if watched else {}))
rng = np.random.default_rng(0)
data = rng.standard_normal((6400, 378)).astype("f"), rng.integers(0, 2, 6400)
groups, permutations = rng.choice(["a", "b"], 6400), int(sys.argv[3])
groups = ks.permutations(groups, n=permutations) if permutations else groups
groups = {"groups": groups} if watched else {}

def resident():
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith("VmRSS"))
    return int(line.split()[1]) * 1024

class Watch(keras.callbacks.Callback):
    seen = []
    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(resident())

model.fit(*data, **groups, epochs=epochs, batch_size=32, verbose=0, callbacks=[Watch()])
print(*Watch.seen)
assert not watched or len(model.spectral_log.steps) == 200 * epochs
"""


def resident_of(epochs, permutations=0):
    """Return `{model: resident bytes after each epoch}` of both models, trained side by side."""
    processes = {
        name: subprocess.Popen(
            [sys.executable, "-c", SCRIPT, name, str(epochs), str(permutations)],
            stdout=subprocess.PIPE,
        )
        for name in ("plain", "watched")
    }
    seen = {
        name: [int(value) for value in process.communicate()[0].split()]
        for name, process in processes.items()
    }
    assert [len(values) for values in seen.values()] == [epochs, epochs]
    return seen


@pytest.mark.parametrize("permutations", [0, 4])
def test_recording_every_step_leaves_memory_flat_after_two_hundred_steps(permutations):
    seen = resident_of(epochs=20, permutations=permutations)
    growth = {name: max(values[1:10]) - values[0] for name, values in seen.items()}
    more = GROWTH_OF_PERMUTATIONS if permutations else 0
    assert growth["watched"] - growth["plain"] < GROWTH + more, seen
    assert seen["watched"][19] - seen["watched"][14] < LATE_GROWTH + more, seen


@pytest.mark.slow
def test_ten_thousand_steps_take_no_more_memory_than_a_few_thousand():
    seen = resident_of(epochs=50)
    late = {name: max(values[45:]) - min(values[15:20]) for name, values in seen.items()}
    assert late["watched"] - max(0, late["plain"]) < LATE_GROWTH, seen
