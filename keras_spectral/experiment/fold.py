"""One training: on one fold, from one seed, in a folder of its own.

Everything that is fitted (standardisation, class weights, weights) is fitted on the training fold
only. The folder gets its final name when it is complete, so an interrupted training leaves none.
"""

import functools
import json
import math
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from sklearn.metrics import accuracy_score, roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.utils.class_weight import compute_class_weight

from keras_spectral import callbacks
from keras_spectral.batches import with_groups
from keras_spectral.capture.sites import require_known_layers
from keras_spectral.experiment.folder import (
    PROBE_FILE,
    atomic_folder,
    fold_folder,
    training_folder,
)
from keras_spectral.experiment.interval import SPECTRA_FILE
from keras_spectral.experiment.retraining import permuted, summaries
from keras_spectral.experiment.study import permuted_groups, split
from keras_spectral.groups import Membership
from keras_spectral.log.files import write_csv
from keras_spectral.model import SpectralModel
from keras_spectral.neuro import models

HELD_OUT = 0.2
"""Share of the training fold that is held out to measure the loss for early stopping."""
PROBE_BYTES = 1_000_000_000
"""Memory of the probe's examples; a random part of the training fold if not all fit."""


def train_fold(study, plan, fold, seed, folder, progress=lambda fold, seed, epoch: None):
    """Train, record and score one fold, unless its folder exists.

    Args:
        study: `Study`.
        plan: `Plan`.
        fold: Number of the fold.
        seed: Number of the repetition.
        folder: Folder of the run.
        progress: Function of `fold, seed, epoch`, called after each epoch.

    Returns:
        The folder of the fold: `spectra.csv`, `probe.csv`, `scores.json` and `model.keras`.
    """
    final = fold_folder(folder, fold, seed)
    if final.exists():
        return final
    with atomic_folder(final) as part:
        run = {"fold": fold, "seed": seed}
        writer = callbacks.SpectralCSVLogger(part / SPECTRA_FILE, run=run)
        groups = permuted_groups(study, plan)
        done = _trained(study, plan, run, groups, plan.spectra, [writer, _reporter(progress, run)])
        done.probe.to_csv(part / PROBE_FILE)
        done.model.save(part / "model.keras")
        (part / "scores.json").write_text(json.dumps({**run, **done.scores}))
    return final


def retrain_fold(study, plan, number, fold, seed, folder, progress=lambda fold, seed, epoch: None):
    """Train and score one fold with a permuted target, unless its folder exists.

    Args:
        study: `Study`.
        plan: `Plan`.
        number: Number of the permutation, from 1.
        fold: As in `train_fold`.
        seed: As in `train_fold`.
        folder: As in `train_fold`.
        progress: As in `train_fold`.

    Returns:
        The folder of the training: `summaries.csv.gz` of its probe, and `scores.json`.
    """
    final = training_folder(folder, number, fold, seed)
    if final.exists():
        return final
    with atomic_folder(final) as part:
        run = {"fold": fold, "seed": seed}
        study = permuted(study, number)
        done = _trained(study, plan, run, study.groups, None, [_reporter(progress, run)])
        write_csv(summaries(done.probe, number), part / "summaries.csv.gz")
        scores = {"permutation": number, **run, **done.scores}
        (part / "scores.json").write_text(json.dumps(scores))
    return final


def require_layers(study, plan):
    """Raise, before anything is trained or written, if `plan.layers` are not in the network.

    Args:
        study: `Study`.
        plan: `Plan`.

    Raises:
        SettingsError: If an entry of `plan.layers` matches no layer with weights.
    """
    if plan.layers:
        model = _built(plan, study.x, np.arange(1), len(study.classes))
        require_known_layers(model, plan.spectra)


class _Trained(NamedTuple):
    """A finished training: model, `SpectralLog` of the probe, scores on the test fold."""

    model: Any
    probe: Any
    scores: dict


def _trained(study, plan, run, groups, spectra, others):
    """Train one fold from one seed with a probe of `groups`; `others` are further callbacks."""
    fold, seed = run["fold"], run["seed"]
    keras.utils.set_random_seed(1000 * seed + fold)
    train, test = split(study, plan, fold, seed)
    fitted, held_out = _held_out(study, plan, train, seed)
    model = _compiled(plan, study.x, fitted, len(study.classes), spectra)
    weights = _class_weights(plan, study.y[fitted])
    probe = _probe(study, plan, groups, fitted, seed, weights)
    model.fit(
        _shuffled_batches(study, groups, fitted, plan.batch_size, seed),
        epochs=plan.epochs,
        callbacks=[*_early_stopping(plan), *others, probe],
        validation_data=None if held_out is None else _batches(study, held_out, plan.batch_size),
        class_weight=weights,
        shuffle=False,
        verbose=0,
    )
    tested = _batches(study, test, plan.batch_size)
    probabilities = np.concatenate([np.asarray(model(x, training=False)) for x, _ in tested])
    return _Trained(model, probe.log.with_run(run), _scores(study.y[test], probabilities))


def _probe(study, plan, groups, fitted, seed, weights):
    probed = _probe_examples(study.x, fitted, seed)
    y = study.y[probed]
    return callbacks.SpectralProbe(
        _array(study.x, probed),
        y,
        groups[probed],
        every=plan.probe_schedule,
        spectra=plan.spectra,
        sample_weight=None if weights is None else np.array([weights[k] for k in y]),
    )


def _reporter(progress, run):
    return keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: progress(run["fold"], run["seed"], epoch)
    )


def _held_out(study, plan, train, seed):
    """Return the examples to fit on, and those held out for early stopping, or `None`."""
    if plan.patience is None:
        return train, None
    subjects = train if study.ids is None else np.asarray(study.ids)[train]
    known, first = np.unique(subjects, return_index=True)
    size = max(len(study.classes), round(HELD_OUT * len(known)))  # at least one per class
    fitted, _ = train_test_split(
        known, test_size=size, random_state=seed, stratify=study.y[train][first]
    )
    is_fitted = np.isin(subjects, fitted)
    return train[is_fitted], train[~is_fitted]


def _early_stopping(plan):
    if plan.patience is None:
        return []
    return [keras.callbacks.EarlyStopping(patience=plan.patience, restore_best_weights=True)]


def _array(x, indices):
    return (
        np.asarray(x[indices], dtype="float32") if isinstance(x, np.ndarray) else x[indices].array()
    )


def _probe_examples(x, fitted, seed):
    """Return the indices of the examples of the probe, ascending."""
    room = PROBE_BYTES // (4 * int(np.prod(x.shape[1:])))
    if room >= len(fitted):
        return fitted
    return np.sort(np.random.default_rng(seed).permutation(fitted)[: max(1, room)])


def _compiled(plan, x, fitted, n_classes, spectra):
    model = SpectralModel.from_model(_built(plan, x, fitted, n_classes))
    model.compile(
        "adam",
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        spectra=spectra,
    )
    return model


def _built(plan, x, fitted, n_classes):
    if plan.model == "mlp":
        scale = _scale(_array(x, fitted))
        return models.mlp(x.shape[1], n_classes, standardize=scale, **plan.options)
    if plan.model == "cnn3d":
        return models.cnn3d(x.shape[1:4], n_classes, **plan.options)
    return getattr(models, plan.model)(x.shape[1], x.shape[2], n_classes, **plan.options)


def _scale(x):
    # A feature that is constant in the training fold may vary in the test fold: it is not divided
    # by its variance of zero.
    variance = np.where((x == x[0]).all(axis=0), 1.0, x.var(axis=0, dtype="float64"))
    return x.mean(axis=0, dtype="float64"), variance


def _class_weights(plan, y):
    if not plan.balanced:
        return None
    classes = np.unique(y)
    weights = compute_class_weight("balanced", classes=classes, y=y)
    return dict(zip(classes.tolist(), weights.tolist(), strict=True))


def _shuffled_batches(study, groups, indices, batch_size, seed):
    # With a fixed seed Keras itself would form the same batches in every epoch.
    real = Membership(groups.real_names, groups.mask[:, groups.permutation == 0])
    data = with_groups(
        tf.data.Dataset.from_tensor_slices((indices, study.y[indices])), real[indices]
    )
    data = data.shuffle(len(indices), seed=seed, reshuffle_each_iteration=True)
    return _with_examples(data, study.x).batch(batch_size).prefetch(1)


def _batches(study, indices, batch_size):
    data = tf.data.Dataset.from_tensor_slices((indices, study.y[indices]))
    return _with_examples(data, study.x).batch(batch_size)


def _with_examples(data, x):
    """Replace indices by the examples, which are read from disk if they are there."""
    read = (
        functools.partial(tf.gather, tf.constant(x, tf.float32))
        if isinstance(x, np.ndarray)
        else x.tensor
    )
    return data.map(lambda index, *rest: (read(index), *rest), num_parallel_calls=tf.data.AUTOTUNE)


def _scores(y, probabilities):
    if not np.isfinite(probabilities).all():  # training has diverged
        return {"auc": math.nan, "accuracy": math.nan}
    options = (
        {"y_score": probabilities[:, 1]}
        if probabilities.shape[1] == 2
        else {"y_score": probabilities, "multi_class": "ovr"}
    )
    accuracy = accuracy_score(y, probabilities.argmax(axis=1))
    return {"auc": float(roc_auc_score(y, **options)), "accuracy": float(accuracy)}
