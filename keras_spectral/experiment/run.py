"""Cross-validated runs: folds x seeds of one classifier, recorded, compared and reported.

Every fold is written to a folder of its own when it is finished, so an interrupted run loses no
finished fold and can be resumed.
"""

import functools
import inspect
import itertools
import json
from dataclasses import asdict
from pathlib import Path

import joblib
import pandas as pd

from keras_spectral.analysis import report
from keras_spectral.analysis.report_pairs import report_comparisons
from keras_spectral.errors import DataError
from keras_spectral.experiment.fold import require_layers
from keras_spectral.experiment.folder import (
    PROBE_FILE,
    fold_folder,
    prepared,
    training_folder,
)
from keras_spectral.experiment.interval import SPECTRA_FILE, interval_line, with_found_interval
from keras_spectral.experiment.retraining import score_test, target_groups, with_retrainings
from keras_spectral.experiment.study import fingerprint, permuted_groups
from keras_spectral.experiment.task import no_progress, train, train_apart, train_quietly
from keras_spectral.groups import Membership
from keras_spectral.log import SpectralLog, read_log
from keras_spectral.log.files import read_columns
from keras_spectral.log.schema import PERMUTATION_KEYS
from keras_spectral.neuro import models
from keras_spectral.provenance import PACKAGES, groups_are_target


def cross_validated(study, plan, folder, progress=no_progress, jobs=1, apart=False):
    """Train a classifier on every fold and seed, and concatenate the logs.

    Folds that are already finished in `folder` are not trained again. `folder` then holds
    `scores.csv`, `spectra.csv` (every recorded training step), `probe.csv` (evaluations of the
    whole training fold, with permutations), and `fold_*/` with each fold's logs and `model.keras`.
    With `plan.permute_target`, trainings with permuted targets take the place of the permutations
    of groups that are the target, and `retrained_scores.csv` and `retrained/` are there too.
    With `plan.every="auto"` the first training runs alone, and all others take its interval.

    Args:
        study: `Study`.
        plan: `Plan`.
        folder: An existing folder.
        progress: Function of `fold, seed, epoch, number`, called after each epoch; of trainings in
            other processes, after the last epoch only. `number` is that of the permuted target, 0
            for the real one.
        jobs: Number of trainings at the same time, by joblib. Results do not depend on it.
            Trainings with a permuted target always run in a process of their own.
        apart: Run all trainings in a process of their own. Needed where workers have threads:
            inside `joblib.parallel_config("dask")`, on a cluster whose machines share `folder`.

    Returns:
        The tuple `(scores, probe log)`: a DataFrame with `fold`, `seed`, `auc`, `accuracy` on the
        test fold, and a `SpectralLog` of all runs.

    Raises:
        DataError: If a class has fewer subjects than there are folds, or `plan.permute_target` is
            set and no group is the target.
        GroupsError: If there is no group, or there are too many with their permutations.
    """
    folder = Path(folder)
    _require_possible(study, plan)
    run = functools.partial(_run, study, folder=folder, progress=progress, jobs=jobs, apart=apart)
    real, *permuted = plan.tasks
    if plan.every == "auto":
        run(plan, real[:1], [])
        run(with_found_interval(plan, folder), real[1:], permuted)
    else:
        run(plan, real, permuted)
    return _gathered(plan, study, folder)


def _run(study, plan, real, permuted, folder, progress, jobs, apart):
    """Run trainings on the real target, and tasks of trainings on permuted ones."""
    if jobs == 1:
        train(study, plan, real, folder, progress)
        done = (train_apart(study, plan, task, folder) for task in permuted)
    else:
        first = train_apart if apart else train_quietly
        tasks = [joblib.delayed(first)(study, plan, [each], folder) for each in real]
        again = joblib.delayed(train_apart)
        tasks += [again(study, plan, task, folder) for task in permuted]
        done = joblib.Parallel(jobs, return_as="generator_unordered")(tasks)
    for number, fold, seed in itertools.chain.from_iterable(done):
        progress(fold, seed, plan.epochs - 1, number)


def _require_possible(study, plan):
    arguments = inspect.signature(getattr(models, plan.model)).parameters.values()
    optional = [each.name for each in arguments if each.default is not each.empty]
    known = [
        name for name in optional if name not in ("standardize", "name")
    ]  # set by this package
    unknown = [name for name in plan.options if name not in known]
    if unknown:
        raise DataError(
            f"`options` must be arguments of `neuro.models.{plan.model}`. "
            f"Received: {', '.join(unknown)}. Try some of {', '.join(known)}."
        )
    require_layers(study, plan)
    if plan.permute_target:
        target_groups(study)
    return permuted_groups(study, plan)


def prepared_folder(path, study, plan, overwrite=False, resume=False):
    """Return a folder to write a run to, see `folder.prepared`.

    Args:
        path: The folder; made if it is absent.
        study: `Study`.
        plan: `Plan`.
        overwrite: Remove the files of a former run first, and no others.
        resume: Continue a former run of the same plan and data.

    Returns:
        The path.

    Raises:
        DataError: If the folder may not be used, or the plan does not suit the study.
        GroupsError: If there is no group, or there are too many with their permutations.
        SettingsError: If the network has no such layers.
        OSError: If it cannot be written.
    """
    groups = _require_possible(study, plan)
    what = {
        "plan": asdict(plan),
        "data": fingerprint(study, groups),
        "versions": {package.__name__: package.__version__ for package in PACKAGES},
        **study.about,
    }
    return prepared(path, what, overwrite, resume)


def _gathered(plan, study, folder):
    finished = [fold_folder(folder, *pair) for pair in plan.trainings]
    scores = _scores(finished)
    scores.to_csv(folder / "scores.csv", index=False)
    about = {
        **study.about,
        "plan": asdict(plan),
        "scores": scores.to_dict("records"),
        "groups_are_target": groups_are_target(Membership.of(study.groups), study.y),
    }
    if plan.every == "auto":
        about["recorded_steps"] = interval_line(plan, folder)
    spectra = SpectralLog.concat([read_log(f / SPECTRA_FILE) for f in finished])
    probe = SpectralLog.concat([read_log(f / PROBE_FILE) for f in finished])
    if plan.permute_target:
        again = [training_folder(folder, *each) for each in plan.all_trainings if each[0]]
        others = _scores(again)
        others.to_csv(folder / "retrained_scores.csv", index=False)
        about["score_test"] = score_test(scores, others)
        tables = [read_columns(f / "summaries.csv.gz", PERMUTATION_KEYS) for f in again]
        probe = with_retrainings(probe, pd.concat(tables, ignore_index=True))
    for log, name in ((spectra, SPECTRA_FILE), (probe, PROBE_FILE)):
        log.provenance |= about
        log.to_csv(folder / name)
    return scores, probe


def _scores(folders):
    return pd.DataFrame([json.loads((f / "scores.json").read_text()) for f in folders])


def findings(probe, folder, study):
    """Compare the groups of each factor, and write `comparison.csv`, `report.html`, `figures/`.

    Args:
        probe: `SpectralLog` of the probes of all folds.
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
