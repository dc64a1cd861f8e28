"""The folder of a run: when it may be written, and what of a former run is in it."""

import contextlib
import json
import shutil
from pathlib import Path

from keras_spectral.errors import DataError
from keras_spectral.log.files import write_json

RUN_FILE = "run.json"
MAY_CHANGE = ("retrainings",)
"""Settings by which a run that goes on may differ: what is finished does not depend on them."""
PROBE_FILE = "probe.csv"
"""The log by which the groups of a run are compared."""
WRITTEN = (
    "fold_*_seed_*",
    "retrained",
    "retrained_scores.csv",
    "settings.toml",
    "spectra.csv",
    "spectra.json",
    PROBE_FILE,
    "probe.json",
    "probe.relabelings.csv.gz",
    "scores.csv",
    "comparison.csv",
    "figures/*.png",
    "report.html",
)
"""What a run writes beside `run.json`, and what `overwrite` removes."""


def fold_folder(folder, fold, seed):
    """Return where a finished fold is kept."""
    return Path(folder) / f"fold_{fold}_seed_{seed}"


def retrained_folder(folder, number, fold, seed):
    """Return where a finished training with the `number`-th permuted target is kept."""
    return fold_folder(Path(folder) / "retrained" / str(number), fold, seed)


@contextlib.contextmanager
def made_whole(final):
    """Give a folder its name when it is whole, so that an interrupted training leaves none.

    Args:
        final: Where it is to be.

    Yields:
        The folder to write to, empty.
    """
    part = final.with_name(final.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    yield part
    part.rename(final)


def prepared(path, what, overwrite=False, resume=False):
    """Return a folder to write a run to, with `run.json` in it.

    Args:
        path: The folder; made if it is absent.
        what: What `run.json` is to say. Runs of equal `"plan"` and `"data"` are the same.
        overwrite: Remove first what a former run wrote there, and nothing else.
        resume: Go on with a former run of the same plan and data.

    Returns:
        The path.

    Raises:
        DataError: If it exists and neither was asked for, if it holds something else, or if the
            former run was another one.
        OSError: If it cannot be written.
    """
    path, what = Path(path), json.loads(json.dumps(what))  # as it will be read again
    try:
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            _require_permission(path, what, overwrite, resume)
            if overwrite:
                _remove_run(path)
        path.mkdir(parents=True, exist_ok=True)
        write_json(what, path / RUN_FILE)
    except OSError as error:
        raise type(error)(
            f"`out` must be a folder that can be written to. Received: {path}: "
            f"{error.strerror}. Try another folder."
        ) from error
    return path


def former_run(path):
    """Return what `run.json` says of the run in a folder.

    Args:
        path: The folder, which need not exist.

    Returns:
        Dictionary; empty if the folder holds no run of ours.
    """
    try:
        what = json.loads((Path(path) / RUN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    ours = isinstance(what, dict) and "keras_spectral" in what.get("versions", ())
    return what if ours else {}


def _require_permission(path, what, overwrite, resume):
    if overwrite == resume:
        raise DataError(
            f"`out` must be a new or empty folder. Received: {path}, which exists. Try another "
            "name, or either `--resume` to go on with that run or `--overwrite` to replace it."
        )
    former = former_run(path)
    if not former:
        raise DataError(
            f"`out` must be the folder of a former run. Received: {path}, without its {RUN_FILE}: "
            "it may hold something of yours. Try another name."
        )
    changed = [
        name
        for part in ("plan", "data")
        for name, value in what[part].items()
        if former.get(part, {}).get(name) != value and name not in MAY_CHANGE
    ]
    if resume and changed:
        raise DataError(
            "`--resume` must be given the same data and settings as before. "
            f"Received: {path}, where these were others: {', '.join(changed)}. "
            "Try another `--out`, or `--overwrite`."
        )


def _remove_run(path):
    for found in [item for pattern in WRITTEN for item in path.glob(pattern)]:
        if found.is_dir() and not found.is_symlink():
            shutil.rmtree(found)
        else:
            found.unlink()
