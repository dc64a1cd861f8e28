"""What each compiled function is worth: training with and without it, in one process.

    python -m benchmarks.ablation [--seconds 60] [--only NAME] [--write docs/benchmarks.md]

One plain and one recorded model of each workload. Within each repeat the plain model trains once,
and the recorded one once with all compiled functions and once without each of them.
"""

import argparse
import contextlib
import statistics
import time
import unittest.mock
from pathlib import Path

from benchmarks.page import machine, table, with_section
from benchmarks.training import ALWAYS, CASES, PLAIN, trainer
from benchmarks.workloads import WORKLOADS
from keras_spectral.compiled import LIBRARY, compiled, lagged
from keras_spectral.spectra import host

FUNCTIONS = {"eigenvalues": host, "lattice_products": lagged}
"""The compiled functions, each with the module that calls it."""

ALL = "all"

FEWEST = 3
"""Repeats, at least."""

TITLE = "Compiled functions"

HEAD = ["workload", "repeats", "plain, ms", "ratio with all"]
HEAD += [head for name in FUNCTIONS for head in (f"without `{name}`", f"gain of `{name}`")]


@contextlib.contextmanager
def without(name):
    """Return a context in which one of the compiled functions is missing.

    Args:
        name: Key of `FUNCTIONS`, or `ALL` to leave them all there.
    """

    def found(asked, *types):
        return None if asked == name else compiled(asked, *types)

    with contextlib.ExitStack() as patches:
        for module in FUNCTIONS.values():
            patches.enter_context(unittest.mock.patch.object(module, "compiled", found))
        yield


def measured(name, seconds, steps=None, fewest=FEWEST):
    """Return milliseconds per step, `{case: [repeat]}`, cases taking turns for some seconds.

    Args:
        name: Key of `WORKLOADS`.
        seconds: Of all repeats, or more.
        steps: Steps of a timed epoch, those of the workload if not given.
        fewest: Repeats, at least.

    Returns:
        Dictionary with the keys `PLAIN`, `ALL` and those of `FUNCTIONS`: without each.
    """
    workload = WORKLOADS[name]
    plain, recorded = (
        trainer(workload, CASES[case], steps or workload.steps) for case in (PLAIN, ALWAYS)
    )
    plain()
    recorded()
    times = {case: [] for case in (PLAIN, ALL, *FUNCTIONS)}
    end = time.monotonic() + seconds
    while len(times[PLAIN]) < fewest or time.monotonic() < end:
        times[PLAIN].append(plain())
        for case in (ALL, *FUNCTIONS):
            with without(case):
                times[case].append(recorded())
    return times


def row(name, times):
    """Return a table row, see `HEAD`.

    Args:
        name: Key of `WORKLOADS`.
        times: As `measured` returns them.
    """
    cells = [f"{_ratio(times, ALL, PLAIN):.2f}"]
    for function in FUNCTIONS:
        cells += [f"{_ratio(times, function, PLAIN):.2f}", f"{_ratio(times, function, ALL):.2f}"]
    return [name, len(times[PLAIN]), f"{statistics.median(times[PLAIN]):.2f}", *cells]


def _ratio(times, case, base):
    pairs = zip(times[case], times[base], strict=True)
    return statistics.median(value / of for value, of in pairs)


SECTION = """\
## {title}

Made by `python -m benchmarks.ablation --seconds {seconds} --write {write}` (`make bench-ablation`).
{machine}.

Two functions are written in C (`keras_spectral/compiled`); without them NumPy gives the same
spectra. The step of a training that records every step, as a ratio to the step of plain training:
with both, and without each. *Gain* is the step without the function as a ratio to the step with
it: where it is 1 the function is not used, or nothing waits for it. Medians over repeats of an
epoch, in which the cases take turns in one process.

{table}
"""


def main(arguments=None):
    """Measure, print, and write the section if asked.

    Args:
        arguments: List of the command line's arguments, those of the process if not given.

    Raises:
        SystemExit: If nothing is compiled.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=60, help="of each workload, or more")
    parser.add_argument("--only", default="", help="measure the workloads whose names hold this")
    parser.add_argument("--steps", type=int, help="of a timed epoch, to try the command")
    parser.add_argument("--write", type=Path, help="Markdown page whose section to write")
    options = parser.parse_args(arguments)
    if not LIBRARY.exists():
        raise SystemExit(f"{LIBRARY} must be there. Try `pip install --editable .`.")
    found = []
    print(" | ".join(HEAD), flush=True)
    for name in WORKLOADS:
        if options.only in name:
            found.append(row(name, measured(name, options.seconds, options.steps)))
            print(" | ".join(map(str, found[-1])), flush=True)
    if options.write:
        section = SECTION.format(
            title=TITLE, machine=machine(), table=table(HEAD, found), **vars(options)
        )
        page = options.write.read_text(encoding="utf-8")
        options.write.write_text(with_section(page, section), encoding="utf-8")


if __name__ == "__main__":
    main()
