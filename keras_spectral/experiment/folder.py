"""The folder of a run: when it may be written, and what of a former run is in it."""

import contextlib
import json
import shutil
from pathlib import Path

from keras_spectral.errors import DataError
from keras_spectral.log.files import write_json

RUN_FILE = "run.json"
MAY_CHANGE = ("permute_target",)
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
    "probe.permutations.csv.gz",
    "scores.csv",
    "comparison.csv",
    "figures/*.png",
    "report.html",
)
"""What a run writes beside `run.json`, and what `overwrite` removes."""


def fold_folder(folder, fold, seed):
    """Return where a finished fold is kept."""
    return training_folder(folder, 0, fold, seed)


def training_folder(folder, number, fold, seed):
    """Return where a finished training is kept, of the `number`-th permuted target, or the real."""
    place = Path(folder) / "retrained" / str(number) if number else Path(folder)
    return place / f"fold_{fold}_seed_{seed}"


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


def require_usable(path, overwrite, resume):
    """Check that a folder may be written to, before work is put into what it is to hold.

    Args:
        path: The folder.
        overwrite: As in `prepared`.
        resume: As in `prepared`.

    Raises:
        DataError: If it holds something, and neither was asked for or it is no former run.
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
            "it may hold something of yours. Try another name."
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
            f"Received: {path}, where these were others: {', '.join(changed)}. "
            "Try another `--out`, or `--overwrite`."
        )


def _remove_run(path):
    for found in [item for pattern in WRITTEN for item in path.glob(pattern)]:
        if found.is_dir() and not found.is_symlink():
            shutil.rmtree(found)
        else:
            found.unlink()
