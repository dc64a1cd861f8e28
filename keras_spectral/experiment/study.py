"""The subjects of a run, and its plan: how to train and what to record."""

import hashlib
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from keras_spectral import schedules
from keras_spectral.errors import DataError
from keras_spectral.groups import Membership
from keras_spectral.neuro.targets import require_enough_per_class
from keras_spectral.permuted_groups import permutations
from keras_spectral.settings import QUANTITIES, Spectra

MODELS = ("mlp", "bilstm", "transformer", "cnn1d", "cnn3d")
"""Names of the functions of `neuro.models` that can be trained."""
EVALUATIONS = {"mlp": 40}
"""Default of the largest number of evaluations of the probe during a training, by model."""
FEW_EVALUATIONS = 6
"""The same for other models, where an evaluation takes seconds."""


@dataclass(frozen=True)
class Study:
    """Subjects to train on.

    Attributes:
        x: Float array, one example per row: `[n, f]` of features that are not standardised,
            `[n, t, r]` of time series, or `Volumes`.
        y: Integer array `[n]` of classes.
        classes: Class names, in the order of `y`.
        groups: What `fit(groups=…)` accepts, one row per example; equal for all examples of a
            subject, as they are permuted over subjects.
        about: Dictionary of facts about the data, for the provenance; `simulated=True` for
            simulated data.
        ids: Array `[n]` with the subject of each example, if subjects have several, such as windows
            of a time series: all examples of a subject are in the same fold. `None`: every example
            is a subject.
        stratify: Array `[n]` of labels, such as the site, that all folds should have in equal
            shares, in addition to the classes. `None`: the classes alone.
        within: Array `[n]` of labels, such as the site, within which groups and a permuted target
            are permuted, so that an association with these labels is not tested. `None`: groups
            are permuted over all subjects.
    """

    x: Any
    y: np.ndarray
    classes: tuple
    groups: object
    about: dict
    ids: Any = None
    stratify: Any = None
    within: Any = None


@dataclass(frozen=True)
class Plan:
    """How to train, and what to record.

    Attributes:
        folds: Number of stratified folds, at least 2.
        seeds: Number of repetitions, each with its own folds and initial weights.
        epochs: Number of epochs.
        batch_size: Examples per step.
        permutations: Number of permutations of the groups, the null distribution; 0 for none.
        every: Training steps between two records; `"auto"`: as the first training of the run finds
            that recording takes a tenth of the time, see `schedules.budget`.
        probe_every: Epochs between two evaluations of the whole training fold, from which groups
            are compared; `None` is every epoch, up to 40 evaluations (6 if `model` is not `mlp`).
        model: One of `MODELS`.
        options: Dictionary of arguments of that function, such as `{"units": 64}`.
        balanced: Whether classes have equal weight in the loss, whatever their sizes.
        patience: Epochs without a lower loss on held-out training subjects after which training
            stops, with the best weights; `None`: no early stopping, no subject is held out.
        permute_target: Repetitions of the whole experiment with the target permuted over subjects:
            the null distribution of groups that are the target. 0 for none.
        layers: Paths or patterns of the layers to record, such as `("conv_*",)`; empty for all.
        quantities: Which matrices to record: any of `"activation"`, `"adjoint"`, `"gradient"`.
    """

    folds: int = 5
    seeds: int = 1
    epochs: int = 40
    batch_size: int = 32
    permutations: int = 99
    every: int | str | schedules.budget = "auto"
    probe_every: int | None = None
    model: str = "mlp"
    options: dict = field(default_factory=dict)
    balanced: bool = False
    patience: int | None = None
    permute_target: int = 0
    layers: tuple = ()
    quantities: tuple = QUANTITIES

    def __post_init__(self):
        if self.model not in MODELS:
            raise DataError(
                f"`model` must be one of {', '.join(MODELS)}. Received: model={self.model!r}."
            )

    @property
    def spectra(self):
        """What is recorded: `Spectra`."""
        every = schedules.budget() if self.every == "auto" else self.every
        return Spectra(every=every, layers=self.layers or None, quantities=self.quantities)

    @property
    def probe_schedule(self):
        """The schedule of the probe."""
        evaluations = EVALUATIONS.get(self.model, FEW_EVALUATIONS)
        return schedules.epochs(self.probe_every or math.ceil(self.epochs / evaluations))

    @property
    def trainings(self):
        """List of pairs `(fold, seed)`, in the order in which they run."""
        return [(fold, seed) for seed in range(self.seeds) for fold in range(self.folds)]

    @property
    def tasks(self):
        """List of tasks, each a list of `(number, fold, seed)`: one task per target.

        Number 0 is the real target. All folds of a permuted target are trained in one process.
        """
        return [[(k, *pair) for pair in self.trainings] for k in range(self.permute_target + 1)]

    @property
    def all_trainings(self):
        """List of `(number, fold, seed)`, in the order in which they run."""
        return [training for task in self.tasks for training in task]


def permuted_groups(study, plan):
    """Return the groups of a study, with their permutations.

    Args:
        study: `Study`.
        plan: `Plan`.

    Returns:
        `Membership`.

    Raises:
        DataError: If a class has fewer subjects than there are folds.
        GroupsError: If there is no group, there are too many with their permutations, or examples
            of a subject differ in their groups.
    """
    require_enough_per_class(study.y[_first_of_each(study)], study.classes, plan.folds)
    groups = Membership.of(study.groups, n=len(study.y))
    if not plan.permutations:
        return groups
    return permutations(
        groups, n=plan.permutations, seed=0, subjects=study.ids, within=study.within
    )


def split(study, plan, fold, seed):
    """Return the training and the test examples of a fold.

    Args:
        study: `Study`.
        plan: `Plan`.
        fold: Number of the fold.
        seed: Number of the repetition.

    Returns:
        The tuple of integer arrays `(train, test)`. All examples of a subject are in one of them.
    """
    strata = study.y if study.stratify is None else _crossed(study.y, study.stratify)
    if study.ids is None:
        folds = StratifiedKFold(plan.folds, shuffle=True, random_state=seed)
        return list(folds.split(strata, strata))[fold]
    folds = StratifiedGroupKFold(plan.folds, shuffle=True, random_state=seed)
    return list(folds.split(strata, strata, np.asarray(study.ids)))[fold]


def fingerprint(study, groups):
    """Return hashes of a study, to compare it with that of a former run.

    Args:
        study: `Study`.
        groups: Its `Membership`.

    Returns:
        Dictionary of hexadecimal SHA-256 digests.
    """
    x = study.x
    examples = np.ascontiguousarray(x) if isinstance(x, np.ndarray) else repr(x).encode()
    columns = (study.ids, study.stratify, study.within)
    split_by = repr([None if column is None else list(column) for column in columns])
    parts = {
        "features": examples,
        "target": repr((study.classes, study.y.tolist())).encode(),
        "groups": repr(groups.names).encode() + groups.mask.tobytes(),
        "split_by": split_by.encode(),
    }
    return {name: hashlib.sha256(part).hexdigest() for name, part in parts.items()}


def _first_of_each(study):
    if study.ids is None:
        return slice(None)
    return np.unique(np.asarray(study.ids), return_index=True)[1]


def _crossed(y, strata):
    _, numbers = np.unique(np.asarray(strata, dtype=str), return_inverse=True)
    return y * (numbers.max() + 1) + numbers
