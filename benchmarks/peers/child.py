"""One peer on one network, in a process of its own.

    python -m benchmarks.peers.child "Opacus" FOLDER SECONDS

reads `task.npz` of the folder and appends a line of JSON to `report.jsonl` there whenever something
is known, so that a reader has it also if this process is ended.
"""

import importlib
import json
import os
import sys
import time
import warnings
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from benchmarks.memory import peak_resident
from benchmarks.peers import oracle
from benchmarks.peers.task import CHECK, GRADIENT, GROUPS, QUANTITIES, Task

PEERS = {
    "keras_spectral": ("ours.every_step", QUANTITIES),
    "keras_spectral, gradients": ("ours.gradients_only", GRADIENT),
    "hooks and svdvals": ("hooks.hooks_and_svdvals", QUANTITIES),
    "a pass per group": ("tensorflow_gradients.pass_per_group", GRADIENT),
    "tape.jacobian": ("tensorflow_gradients.tape_jacobian", GRADIENT),
    "vectorized_map": ("tensorflow_gradients.vectorized_map", GRADIENT),
    "Opacus": ("opacus_samples.opacus", GRADIENT),
    "Cockpit": ("cockpit_economy.cockpit", (oracle.NORM,)),
}
"""Function that makes the peer, and the quantities it finds."""

OURS = {
    QUANTITIES: "keras_spectral",
    GRADIENT: "keras_spectral, gradients",
    (oracle.NORM,): "keras_spectral",
}
"""Whom peers are compared with, by the quantities they find."""

FEWEST = 3
"""Repeats, if time allows."""

BLOCK = 0.3
"""Seconds of plain, then of recorded steps, that make a repeat, at least."""


def run(name, folder, seconds):
    """Time a peer, or check what it finds in the small network.

    Args:
        name: Key of `PEERS`.
        folder: Where `task.npz` is and `report.jsonl` goes.
        seconds: Of repeats, at least.
    """
    with np.load(folder / "task.npz") as arrays:
        task = Task(**{key: arrays[key][()] for key in arrays})
    function, quantities = PEERS[name]
    with (folder / "report.jsonl").open("a", encoding="utf-8", buffering=1) as report:
        try:
            module, function = function.split(".")
            make = getattr(importlib.import_module(f"benchmarks.peers.{module}"), function)
            if task.network == CHECK:
                lines = _checked(make(task), task, quantities)
            else:
                lines = _timed(make(task), seconds)
            for line in lines:
                print(json.dumps(line), file=report)
        except Exception as error:
            last = (str(error).strip().splitlines() or [""])[-1].strip().replace("`", "'")
            print(json.dumps({"failed": type(error).__name__, "why": last}), file=report)


def _checked(peer, task, quantities):
    batch = next(task.batches())
    peer.recorded(0.0)
    errors = oracle.errors(peer.found(), oracle.spectra(*batch, GROUPS), quantities)
    yield {"errors": errors}


def _timed(peer, seconds):
    peer.plain(0.0)
    yield {"plain_peak": peak_resident(), "began": time.time()}
    peer.recorded(0.0)
    end, number = time.monotonic() + seconds, 0
    while number < FEWEST or time.monotonic() < end:
        (plain, _), (recorded, steps) = peer.plain(BLOCK), peer.recorded(BLOCK)
        yield {"plain": plain, "recorded": recorded, "steps": steps, "peak": peak_resident()}
        number += 1


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    run(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]))
