"""What is studied, and how: the subjects of a run, and its plan."""

import hashlib
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from keras_spectral import schedules
from keras_spectral.errors import DataError
from keras_spectral.groups import Membership, permutations
from keras_spectral.neuro.targets import require_enough_per_class
from keras_spectral.settings import QUANTITIES, Spectra

MODELS = ("mlp", "bilstm", "transformer", "cnn1d", "cnn3d")
"""What can be trained: functions of `neuro.models`."""
LOOKS = {"mlp": 40}
"""How often the probe looks at a training, at most, by default."""
FEW_LOOKS = 6
"""The same of other models, of which a look takes seconds."""


@dataclass(frozen=True)
class Study:
    """Subjects to train on.

    Attributes:
        x: Float array, one example per row: `[n, f]` of features that are not standardised,
            `[n, t, r]` of time series, or `Volumes`.
        y: Integer array `[n]` of classes.
        classes: Class names, in the order of `y`.
        groups: What `fit(groups=…)` accepts, one row per example; alike for all examples of a
            subject, as they are permuted over subjects.
        about: What is known of the data, for the provenance; `simulated=True` if it is not real.
        ids: The subject of each example, if some have several, as windows of a time series: no fold
            parts them. `None`: every example is a subject.
        stratify: A label per example, such as its site, that all folds should have in equal shares,
            beside the classes. `None`: the classes alone.
        within: A label per example, such as its site, within which groups, and a permuted target,
            are permuted: the association with it is no part of what is tested. `None`: over all.
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
        every: Training steps between two records.
        probe_every: Epochs between two looks at the whole training fold, by which groups are
            compared; `None` is every epoch, up to 40 looks (6 of other models than `mlp`).
        model: One of `MODELS`.
        options: Dictionary of arguments of that function, such as `{"units": 64}`.
        balanced: Whether classes weigh equally in the loss, whatever their sizes.
        patience: Epochs without a better loss on held out training subjects after which training
            stops, with the best weights; `None`: no early stopping, nobody is held out.
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
    every: int = 1
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
        return Spectra(every=self.every, layers=self.layers or None, quantities=self.quantities)

    @property
    def probe_schedule(self):
        """The schedule of the looks."""
        looks = LOOKS.get(self.model, FEW_LOOKS)
        return schedules.epochs(self.probe_every or math.ceil(self.epochs / looks))

    @property
    def trainings(self):
        """List of pairs `(fold, seed)`, in the order in which they run."""
        return [(fold, seed) for seed in range(self.seeds) for fold in range(self.folds)]

    @property
    def tasks(self):
        """List, for the real target, 0, and then each permuted one, of all `(number, fold, seed)`.

        What trains a permuted target in one process trains all of its folds there.
        """
        return [[(k, *pair) for pair in self.trainings] for k in range(self.permute_target + 1)]

    @property
    def all_trainings(self):
        """List of `(number, fold, seed)`, in the order in which they run."""
        return [training for task in self.tasks for training in task]


def labellings(study, plan):
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
        Pair of integer arrays. All examples of a subject are on one side.
    """
    strata = study.y if study.stratify is None else _crossed(study.y, study.stratify)
    if study.ids is None:
        folds = StratifiedKFold(plan.folds, shuffle=True, random_state=seed)
        return list(folds.split(strata, strata))[fold]
    folds = StratifiedGroupKFold(plan.folds, shuffle=True, random_state=seed)
    return list(folds.split(strata, strata, np.asarray(study.ids)))[fold]


def fingerprint(study, groups):
    """Return hashes that tell whether a study is the same as before.

    Args:
        study: `Study`.
        groups: Its `Membership`.

    Returns:
        Dictionary of hexadecimal SHA-256 digests.
    """
    x = study.x
    examples = np.ascontiguousarray(x) if isinstance(x, np.ndarray) else repr(x).encode()
    ways = (study.ids, study.stratify, study.within)
    split_by = repr([None if way is None else list(way) for way in ways])
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
