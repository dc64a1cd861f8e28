"""Cross-validated runs: folds x seeds of one classifier, recorded, compared and reported.

Every fold leaves a folder of its own, made whole at once, so an interrupted run loses no finished
fold and can be resumed.
"""

import json
from dataclasses import asdict
from pathlib import Path

import joblib
import pandas as pd

from keras_spectral.analysis import report
from keras_spectral.analysis.report_pairs import report_comparisons
from keras_spectral.experiment.fold import train_fold
from keras_spectral.experiment.folder import PROBE_FILE, fold_folder, prepared
from keras_spectral.experiment.study import fingerprint, labellings
from keras_spectral.log import SpectralLog, read_log
from keras_spectral.provenance import PACKAGES, groups_are_target
from keras_spectral.spectra.groups import Membership


def cross_validated(study, plan, folder, progress=lambda fold, seed, epoch: None, jobs=1):
    """Train a classifier on every fold and seed, and gather what was recorded.

    Folds that are already finished in `folder` are not trained again. `folder` then holds
    `scores.csv`, `spectra.csv` (every recorded training step), `probe.csv` (looks at the whole
    training fold, with relabelings), and `fold_*/` with each fold's own logs and `model.keras`.

    Args:
        study: `Study`.
        plan: `Plan`.
        folder: An existing folder.
        progress: Called after each epoch; with several jobs, after the last epoch of each fold.
        jobs: Number of processes that train folds at the same time, through joblib: inside of
            `joblib.parallel_config("dask")` they run on a cluster whose machines share `folder`.
            The results are the same.

    Returns:
        The tuple `(scores, probe log)`: a DataFrame with `fold`, `seed`, `auc`, `accuracy` on the
        test fold, and a `SpectralLog` of all runs.

    Raises:
        DataError: If a class has fewer subjects than there are folds.
        GroupsError: If there is no group, or there are too many with their relabelings.
    """
    folder = Path(folder)
    labellings(study, plan)  # complains before anything is trained
    if jobs == 1:
        for fold, seed in plan.trainings:
            train_fold(study, plan, fold, seed, folder, progress)
    else:
        tasks = (joblib.delayed(_trained)(study, plan, *pair, folder) for pair in plan.trainings)
        for fold, seed in joblib.Parallel(jobs, return_as="generator_unordered")(tasks):
            progress(fold, seed, plan.epochs - 1)
    return _gathered(plan, study, folder)


def _trained(study, plan, fold, seed, folder):
    train_fold(study, plan, fold, seed, folder)
    return fold, seed


def prepared_folder(path, study, plan, overwrite=False, resume=False):
    """Return a folder to write a run to, see `folder.prepared`.

    Args:
        path: The folder; made if it is absent.
        study: `Study`.
        plan: `Plan`.
        overwrite: Remove first what a former run wrote there, and nothing else.
        resume: Go on with a former run of the same plan and data.

    Returns:
        The path.

    Raises:
        DataError: If the folder may not be used, or the plan does not suit the study.
        GroupsError: If there is no group, or there are too many with their relabelings.
        OSError: If it cannot be written.
    """
    groups = labellings(study, plan)
    what = {
        "plan": asdict(plan),
        "data": fingerprint(study, groups),
        "versions": {package.__name__: package.__version__ for package in PACKAGES},
        **study.about,
    }
    return prepared(path, what, overwrite, resume)


def _gathered(plan, study, folder):
    finished = [fold_folder(folder, *pair) for pair in plan.trainings]
    scores = pd.DataFrame([json.loads((f / "scores.json").read_text()) for f in finished])
    scores.to_csv(folder / "scores.csv", index=False)
    spectra = SpectralLog.concat([read_log(f / "spectra.csv") for f in finished])
    probe = SpectralLog.concat([read_log(f / PROBE_FILE) for f in finished])
    about = {
        **study.about,
        "plan": asdict(plan),
        "scores": scores.to_dict("records"),
        "groups_are_target": groups_are_target(Membership.of(study.groups), study.y),
    }
    for log, name in ((spectra, "spectra.csv"), (probe, PROBE_FILE)):
        log.provenance |= about
        log.to_csv(folder / name)
    return scores, probe


def findings(probe, folder, study):
    """Compare the groups of each factor, and write `comparison.csv`, `report.html`, `figures/`.

    Args:
        probe: `SpectralLog` of the looks at the training folds.
        folder: Folder of the run.
        study: `Study`.

    Returns:
        A `Pairs`: the comparisons, and which pairs of groups were not compared.
    """
    pairs = report_comparisons(probe)
    if pairs.tables:
        table = pd.concat(pairs.tables, ignore_index=True)
        table.to_csv(folder / "comparison.csv", index=False)
    title = "Simulated data" if study.about.get("simulated") else f"Run {Path(folder).name}"
    report(probe, folder / "report.html", title=title, figures_dir=folder / "figures")
    return pairs
