"""The overhead of other tools, on the same networks, data and machine.

    python -m benchmarks.peers [--seconds 5] [--only NAME] [--write docs/benchmarks-peers.md]

First every peer must find the singular values of a small network that NumPy computes in float64.
Then plain and recorded steps of each take turns in a process of its own.
"""

import argparse
import csv
import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

import numpy as np

from benchmarks.page import machine, table
from benchmarks.peers.child import OURS, PEERS
from benchmarks.peers.oracle import TOLERANCE
from benchmarks.peers.task import STEPS, Task, check_task
from benchmarks.workloads import WORKLOADS

CHOSEN = ("MLP 1378-128x3-2", "MLP 1024x4", "BiLSTM", "Transformer", "1D CNN", "3D CNN")

LIMIT = 120
"""Seconds that one peer may spend on one network, its start and first step included."""

PACKAGES = ("torch", "opacus", "backpack-for-pytorch", "cockpit-for-pytorch")

OVERHEAD, TIMES = "overhead, ms per step", "times ours"

HEAD = [
    "workload",
    "peer",
    "recorded steps",
    "plain, ms per step",
    OVERHEAD,
    "ratio to plain",
    TIMES,
    "plain, MB",
    "peak, MB",
]

CHECK_HEAD = ["peer", "largest error, as a part of the largest singular value"]


def reports(name, task, seconds):
    """Return what a peer reported from a process of its own, list of dicts.

    Args:
        name: Key of `PEERS`.
        task: `Task`.
        seconds: Of repeats, at least; the process is ended after `LIMIT`.
    """
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder) / "task.npz", **asdict(task))
        command = [sys.executable, "-m", "benchmarks.peers.child", name, folder, str(seconds)]
        end, late = [], False
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
            if done.returncode:
                end = [{"failed": _ending(done.returncode), "why": "the process ended"}]
        except subprocess.TimeoutExpired:
            late = True
        report = Path(folder) / "report.jsonl"
        lines = report.read_text(encoding="utf-8").splitlines() if report.exists() else []
    found = [json.loads(line) for line in lines]
    if late:
        why = f"ended after {LIMIT} s"
        if found and "began" in found[-1]:
            why = f"two recorded steps took more than {time.time() - found[-1]['began']:.0f} s"
        end = [{"failed": "out of time", "why": why}]
    return found + end


def checked(name):
    """Return a table row: what a peer finds in the small network is off by so much.

    Args:
        name: Key of `PEERS`.

    Raises:
        SystemExit: If that is more than `TOLERANCE`, or the peer did not get there.
    """
    last = reports(name, check_task(), 0)[-1]
    errors = last.get("errors", {"nothing": float("inf")})
    if not all(error <= TOLERANCE for error in errors.values()):
        raise SystemExit(f"{name} does not find what NumPy finds. It reported: {last}")
    return [name, ", ".join(f"{quantity} {error:.0e}" for quantity, error in errors.items())]


def measured(workload, seconds):
    """Return table rows of every peer, see `HEAD`, and lines that say why some have no numbers.

    Args:
        workload: Name, one of `CHOSEN`.
        seconds: Of repeats, at least.
    """
    chosen = WORKLOADS[workload]
    task = Task(workload, *chosen.data(STEPS), chosen.batch)
    rows, reasons, overheads = [], [], {}
    for name, (_, quantities) in PEERS.items():
        # Ours is in every quotient.
        found = reports(name, task, seconds * 3 if name in OURS.values() else seconds)
        cells = dict.fromkeys(HEAD, "") | {"workload": workload, "peer": name}
        repeats = [line for line in found if "recorded" in line]
        if repeats:
            overheads[name] = _median(repeats, lambda line: line["recorded"] - line["plain"])
            ours = overheads.get(OURS[quantities], 0.0)
            cells |= {
                "recorded steps": sum(line["steps"] for line in repeats),
                "plain, ms per step": _digits(_median(repeats, lambda line: line["plain"])),
                OVERHEAD: _digits(overheads[name]),
                "ratio to plain": _digits(
                    _median(repeats, lambda line: line["recorded"] / line["plain"])
                ),
                TIMES: _digits(overheads[name] / ours) if ours > 0 else "",
                "plain, MB": f"{found[0]['plain_peak'] / 1e6:.0f}",
                "peak, MB": f"{repeats[-1]['peak'] / 1e6:.0f}",
            }
        if "failed" in found[-1]:
            reason = found[-1]["failed"]
            reasons.append(f"- {workload}, {name}: {reason}, `{found[-1]['why'][:160]}`")
            cells[OVERHEAD] = cells[OVERHEAD] or reason
            cells[TIMES] = cells[TIMES] or reason
        rows.append([cells[column] for column in HEAD])
        print(" | ".join(map(str, rows[-1])), flush=True)
    return rows, reasons


def summary(rows):
    """Return a Markdown table of how many times ours: a row per peer, a column per workload.

    Args:
        rows: As `measured` returns them.
    """
    workloads = list(dict.fromkeys(row[0] for row in rows))
    cells = {(row[1], row[0]): row[HEAD.index(TIMES)] for row in rows}
    return table(
        ["peer", *workloads],
        [[name, *(cells[name, workload] for workload in workloads)] for name in PEERS],
    )


def _median(repeats, of):
    return statistics.median(map(of, repeats))


def _digits(value):
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.0f}"


def _ending(status):
    return signal.Signals(-status).name if status < 0 else f"exit status {status}"


PAGE = """\
# The overhead of other tools

Made by `python -m benchmarks.peers --seconds {seconds} --write {write}` (`make bench-peers`).
{machine}, {packages}.

What a user would choose instead, on the networks and data of `benchmarks/workloads.py`: two groups
and the whole batch, every step, exact. *Overhead* is a recorded step minus a plain step of the same
framework; both take turns in one process, a process for each peer and network. *Times ours* is the
overhead as a multiple of that of keras_spectral for the same quantities:

{summary}

Below 1, the peer has less overhead. An exception's name, or a signal's: it cannot do this network.
Nothing: our own overhead has no number, or was lost in the noise of the machine.

The aim was 20 times on MLP 1024x4, and 5 times on every network, of hooks, a pass per group and
gradients of examples. It is reached where the smaller side of every matrix is a batch. It is missed
where matrices have hundreds of rows *and* features: their products and eigenvalue problems are most
of our overhead ([profile](benchmarks.md#where-it-goes)), and no way to the same spectra is without
them. Hooks take singular values of the same matrices, in float32. A pass per group finds gradients
alone, in as many backward passes as there are groups: on the 1D CNN a pass takes less time than
float64 products of its patches with the adjoint.

## Who they are

- **keras_spectral**: this library, singular values of activations, adjoints and gradients, of every
  layer with weights, normalisations included. **gradients**: the same with
  `ks.Spectra(quantities="gradient")`, with which those peers are compared that find no more.
- **hooks and svdvals**: the way of AutoSpec's authors
  ([arXiv 2406.11825](https://arxiv.org/abs/2406.11825)), written from its description: hooks of
  PyTorch keep what each layer multiplies by its weight (patches of a convolution unfolded) and the
  adjoint; `torch.linalg.svdvals` of the rows of each group, and of their product. Dense, recurrent
  and convolutional layers and those of attention; no normalisations.
- **a pass per group**: TensorFlow, one backward pass more for each group, from the loss of its
  examples; `tf.linalg.svd`. Gradients only, as in the next three: a Keras model hands out neither
  what a layer multiplies nor its adjoint.
- **tape.jacobian**, **vectorized_map**: TensorFlow, the gradient of every example by
  `tape.jacobian` of the vector of losses or by `tf.vectorized_map` of a backward pass; sums over
  groups; `tf.linalg.svd`.
- **Opacus**: PyTorch, the gradient of every example by `GradSampleModule`; sums over groups;
  `torch.linalg.svdvals`.
- **Cockpit**: its economy preset, for scale: no groups and no singular values, but norms,
  histograms and tests of the gradients of single examples. Compared with the whole of
  keras_spectral.

Networks of PyTorch are restated with the same layers, widths, windows and batch, Adam too, without
the masks for padding, which these data lack. Their plain steps use `nn.LSTM`; as it shows hooks no
gates, what watches an LSTM by hooks, and Opacus, runs a loop over linear layers instead, and that
is part of the overhead. With batch normalisation the loss of an example depends on the others, and
so gradients of examples' losses, or of a group's, are not the parts that flow through a group's
examples; here only their cost counts. keras_spectral trains by `fit`, the TensorFlow peers by a
`tf.function` without callbacks or metrics. Peers throw away what they find, keras_spectral logs it.

## Times and memory

Medians over repeats. *Recorded steps* says how many were timed, beside a first one. *Plain, MB* is
the peak resident memory of the process before its first recorded step, *peak* at its end. The same
as a table to compute with: [peers.csv](peers.csv).

{table}

What has no numbers, or fewer than it should ({limit} s for a peer and a network, its start
included):

{reasons}

## The same work

Before anything is timed, each peer watches one step of a small network of three layers, and what it
finds must be what NumPy finds in float64, or the command ends with an error. *norm* is that of the
gradient, all that Cockpit has in common with the rest. Allowed: {tolerance:.0e}.

{checks}
"""


def main(arguments=None):
    """Check, measure, print, and write the page if asked.

    Args:
        arguments: List of the command line's arguments, those of the process if not given.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=5, help="of each peer and workload, or more")
    parser.add_argument("--only", help="measure the workloads whose names hold this")
    parser.add_argument("--write", type=Path, help="Markdown page to write")
    options = parser.parse_args(arguments)
    checks = [checked(name) for name in PEERS]
    print(table(CHECK_HEAD, checks), flush=True)
    rows, reasons = [], []
    for workload in CHOSEN:
        if options.only is None or options.only in workload:
            more, why = measured(workload, options.seconds)
            rows += more
            reasons += why
    print(summary(rows))
    print("\n".join(reasons))
    if options.write:
        page = PAGE.format(
            machine=machine(),
            packages=", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES),
            summary=summary(rows),
            table=table(HEAD, rows),
            reasons="\n".join(reasons) or "Nothing.",
            checks=table(CHECK_HEAD, checks),
            limit=LIMIT,
            tolerance=TOLERANCE,
            **vars(options),
        )
        options.write.write_text(page, encoding="utf-8")
        path = options.write.parent / "peers.csv"
        with path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([HEAD, *rows])


if __name__ == "__main__":
    main()
