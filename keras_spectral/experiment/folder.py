"""The folder of a run: its files, and when those of a former run may be replaced."""

import contextlib
import json
import shutil
from pathlib import Path

from keras_spectral.errors import DataError
from keras_spectral.log.files import write_json

RUN_FILE = "run.json"
MAY_CHANGE = ("permute_target",)
"""Settings that may change when a run is resumed: finished trainings do not depend on them."""
PROBE_FILE = "probe.csv"
"""The log from which the groups of a run are compared."""
WRITTEN = (
    "fold_*_seed_*",
    "retrained",
    "retrained_scores.csv",
    "settings.toml",
    "spectra.csv",
    "spectra.json",
    PROBE_FILE,
    "probe.json",
    "probe.permutations.csv.gz",
    "scores.csv",
    "comparison.csv",
    "figures/*.png",
    "report.html",
)
"""Files and folders of a run besides `run.json`: `overwrite` removes them."""


def fold_folder(folder, fold, seed):
    """Return the folder of a finished fold."""
    return training_folder(folder, 0, fold, seed)


def training_folder(folder, number, fold, seed):
    """Return the folder of a finished training; `number` is 0 for the real target."""
    parent = Path(folder) / "retrained" / str(number) if number else Path(folder)
    return parent / f"fold_{fold}_seed_{seed}"


@contextlib.contextmanager
def atomic_folder(final):
    """Yield an empty folder that is renamed to `final` when it is complete.

    An interrupted training therefore leaves no folder of that name.

    Args:
        final: Path of the complete folder.

    Yields:
        Path of the folder to write to.
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
        what: Content of `run.json`. Runs are the same if their `"plan"` and `"data"` are equal.
        overwrite: Remove the files of a former run first, and no others.
        resume: Continue a former run of the same plan and data.

    Returns:
        The path.

    Raises:
        DataError: If it exists and neither option is set, if it holds no former run, or if the
            former run had another plan or other data.
        OSError: If it cannot be written.
    """
    path, what = Path(path), json.loads(json.dumps(what))  # as it will be when read from the file
    try:
        if _holds_something(path):
            require_usable(path, overwrite, resume)
            _require_same(path, what, resume)
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
    """Return the content of `run.json` in a folder.

    Args:
        path: The folder, which need not exist.

    Returns:
        Dictionary; empty if the folder holds no run of this library.
    """
    try:
        what = json.loads((Path(path) / RUN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    is_run = isinstance(what, dict) and "keras_spectral" in what.get("versions", ())
    return what if is_run else {}


def require_usable(path, overwrite, resume):
    """Check that a folder may be written to, before any training.

    Args:
        path: The folder.
        overwrite: As in `prepared`.
        resume: As in `prepared`.

    Raises:
        DataError: If it is not empty, and neither option is set or it holds no former run.
    """
    if not _holds_something(path):
        return
    if overwrite == resume:
        raise DataError(
            f"`out` must be a new or empty folder. Received: {path}, which exists. Try another "
            "name, or either `--resume` to go on with that run or `--overwrite` to replace it."
        )
    if not former_run(path):
        raise DataError(
            f"`out` must be the folder of a former run. Received: {path}, without its {RUN_FILE}: "
            "it may hold other files. Try another name."
        )


def _holds_something(path):
    return path.exists() and (not path.is_dir() or any(path.iterdir()))


def _require_same(path, what, resume):
    former = former_run(path)
    changed = [
        name
        for part in ("plan", "data")
        for name, value in what[part].items()
        if former.get(part, {}).get(name) != value and name not in MAY_CHANGE
    ]
    if resume and changed:
        raise DataError(
            "`--resume` must be given the same data and settings as before. "
            f"Received: {path}, where these differ: {', '.join(changed)}. "
            "Try another `--out`, or `--overwrite`."
        )


def _remove_run(path):
    for found in [item for pattern in WRITTEN for item in path.glob(pattern)]:
        if found.is_dir() and not found.is_symlink():
            shutil.rmtree(found)
        else:
            found.unlink()
