"""Cross-validated runs: folds x seeds of one classifier, recorded, compared and reported.

Every fold leaves a folder of its own, made whole at once, so an interrupted run loses no finished
fold and can be resumed. Everything that is fitted (standardisation, weights) is fitted on the
training fold only.
"""

import hashlib
import json
import math
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from sklearn.metrics import accuracy_score, roc_auc_score
from sklearn.model_selection import StratifiedKFold

from keras_spectral import callbacks, run_folder, schedules
from keras_spectral.analysis import report
from keras_spectral.analysis.report_pairs import report_comparisons
from keras_spectral.batches import with_groups
from keras_spectral.log import SpectralLog, read_log
from keras_spectral.model import SpectralModel
from keras_spectral.neuro.models import mlp
from keras_spectral.neuro.targets import require_enough_per_class
from keras_spectral.provenance import PACKAGES, groups_are_target
from keras_spectral.run_folder import PROBE_FILE, fold_folder
from keras_spectral.settings import Spectra
from keras_spectral.spectra.groups import Membership, relabelings

LOOKS = 40
"""How often the probe looks at a training, at most, by default."""


@dataclass(frozen=True)
class Study:
    """Subjects to train on.

    Attributes:
        x: Float array `[n, f]`, one row per subject, not standardised.
        y: Integer array `[n]` of classes.
        classes: Class names, in the order of `y`.
        groups: What `fit(groups=…)` accepts, one row per subject.
        about: What is known of the data, for the provenance; `simulated=True` if it is not real.
    """

    x: np.ndarray
    y: np.ndarray
    classes: tuple
    groups: object
    about: dict


@dataclass(frozen=True)
class Plan:
    """How to train, and what to record.

    Attributes:
        folds: Number of stratified folds, at least 2.
        seeds: Number of repetitions, each with its own folds and initial weights.
        epochs: Number of epochs.
        batch_size: Subjects per step.
        relabelings: Number of relabelings of the groups, the null distribution; 0 for none.
        every: Training steps between two records.
        probe_every: Epochs between two looks at the whole training fold, by which groups are
            compared; `None` is every epoch, up to about 40 looks.
    """

    folds: int = 5
    seeds: int = 1
    epochs: int = 40
    batch_size: int = 32
    relabelings: int = 99
    every: int = 1
    probe_every: int | None = None

    @property
    def probe_schedule(self):
        """The schedule of the looks."""
        return schedules.epochs(self.probe_every or math.ceil(self.epochs / LOOKS))


def cross_validated(study, plan, folder, progress=lambda fold, seed, epoch: None):
    """Train a multilayer perceptron on every fold and seed, and gather what was recorded.

    Folds that are already finished in `folder` are not trained again. `folder` then holds
    `scores.csv`, `spectra.csv` (every recorded training step), `probe.csv` (looks at the whole
    training fold, with relabelings), and `fold_*/` with each fold's own logs and `model.keras`.

    Args:
        study: `Study`.
        plan: `Plan`.
        folder: An existing folder.
        progress: Called after each epoch.

    Returns:
        The tuple `(scores, probe log)`: a DataFrame with `fold`, `seed`, `auc`, `accuracy` on the
        test fold, and a `SpectralLog` of all runs.

    Raises:
        DataError: If a class has fewer subjects than there are folds.
        GroupsError: If there is no group, or there are too many with their relabelings.
    """
    folder = Path(folder)
    groups = _labellings(study, plan)
    for seed in range(plan.seeds):
        splits = StratifiedKFold(plan.folds, shuffle=True, random_state=seed)
        for fold, (train, test) in enumerate(splits.split(study.x, study.y)):
            if not fold_folder(folder, fold, seed).exists():
                _run_fold(study, plan, groups, train, test, fold, seed, folder, progress)
    return _gathered(plan, study, folder)


def prepared_folder(path, study, plan, overwrite=False, resume=False):
    """Return a folder to write a run to, see `run_folder.prepared`.

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
    groups = _labellings(study, plan)
    what = {
        "plan": asdict(plan),
        "data": _fingerprint(study, groups),
        "versions": {package.__name__: package.__version__ for package in PACKAGES},
        **study.about,
    }
    return run_folder.prepared(path, what, overwrite, resume)


def _fingerprint(study, groups):
    parts = {
        "features": np.ascontiguousarray(study.x).tobytes(),
        "target": repr((study.classes, study.y.tolist())).encode(),
        "groups": repr(groups.names).encode() + groups.mask.tobytes(),
    }
    return {name: hashlib.sha256(part).hexdigest() for name, part in parts.items()}


def _labellings(study, plan):
    require_enough_per_class(study.y, study.classes, plan.folds)
    groups = Membership.of(study.groups, n=len(study.y))
    return relabelings(groups, n=plan.relabelings, seed=0) if plan.relabelings else groups


def _run_fold(study, plan, groups, train, test, fold, seed, folder, progress):
    final = fold_folder(folder, fold, seed)
    part = final.with_name(final.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    keras.utils.set_random_seed(1000 * seed + fold)
    x, y = study.x[train].astype("float32"), study.y[train]
    model = _compiled(study, plan, x)
    run = {"fold": fold, "seed": seed}
    probe = callbacks.SpectralProbe(x, y, groups[train], every=plan.probe_schedule)
    writer = callbacks.SpectralCSVLogger(part / "spectra.csv", run=run)
    told = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: progress(fold, seed, epoch)
    )
    batches = _shuffled_batches(x, y, groups[train], plan.batch_size, seed)
    watching = [writer, probe, told]
    model.fit(batches, epochs=plan.epochs, callbacks=watching, shuffle=False, verbose=0)
    probe.log.with_run(run).to_csv(part / PROBE_FILE)
    model.save(part / "model.keras")
    scores = _scores(study, np.asarray(model(study.x[test], training=False)), test)
    (part / "scores.json").write_text(json.dumps({**run, **scores}))
    part.rename(final)


def _compiled(study, plan, x):
    plain = mlp(x.shape[1], len(study.classes), standardize=_scale(x))
    model = SpectralModel.from_model(plain)
    model.compile(
        "adam",
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        spectra=Spectra(every=plan.every),
    )
    return model


def _scale(x):
    # A feature that is constant in this training fold may vary in the test fold: divided by its
    # zero variance, it would be enormous there.
    variance = np.where((x == x[0]).all(axis=0), 1.0, x.var(axis=0, dtype="float64"))
    return x.mean(axis=0, dtype="float64"), variance


def _shuffled_batches(x, y, groups, batch_size, seed):
    # With a fixed seed Keras would repeat the same batches in every epoch.
    real = Membership(groups.real_names, groups.mask[:, groups.relabeling == 0])
    data = with_groups(tf.data.Dataset.from_tensor_slices((x, y)), real)
    return data.shuffle(len(x), seed=seed, reshuffle_each_iteration=True).batch(batch_size)


def _scores(study, probabilities, test):
    if not np.isfinite(probabilities).all():  # training has diverged
        return {"auc": math.nan, "accuracy": math.nan}
    y = study.y[test]
    options = (
        {"y_score": probabilities[:, 1]}
        if len(study.classes) == 2
        else {"y_score": probabilities, "multi_class": "ovr"}
    )
    accuracy = accuracy_score(y, probabilities.argmax(axis=1))
    return {"auc": float(roc_auc_score(y, **options)), "accuracy": float(accuracy)}


def _gathered(plan, study, folder):
    finished = [
        fold_folder(folder, fold, seed) for seed in range(plan.seeds) for fold in range(plan.folds)
    ]
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
