"""The exact null of groups that are the target: the target permuted over subjects, all else again.

Training has used the labels of such groups, so permuted ones differ from them for that reason
alone. Here every label is drawn anew, of subjects and of what the network is told, and the whole
experiment is repeated: folds, early stopping, looks.

Source: Ojala and Garriga, "Permutation tests for studying classifier performance", J. Mach. Learn.
Res. 11, 2010 (test 1).
"""

import dataclasses

import numpy as np
import pandas as pd

from keras_spectral.errors import DataError
from keras_spectral.groups import ALL, Membership, permutation_within
from keras_spectral.log import SpectralLog
from keras_spectral.log.schema import ALL_FACTS, PERMUTATION_KEYS
from keras_spectral.provenance import groups_are_target
from keras_spectral.summaries import SUMMARIES

MOMENT = ["run", "epoch", "step"]
TIE = 1e-9
"""AUCs that differ by less are equal: means of equal numbers differ by rounding."""


def target_groups(study):
    """Return the groups of a study that are the target.

    Args:
        study: `Study`.

    Returns:
        `Membership` of these groups alone.

    Raises:
        DataError: If there is none.
    """
    groups = Membership.of(study.groups, n=len(study.y))
    names = groups_are_target(groups, study.y)
    if not names:
        raise DataError(
            "Training again with a permuted target must have groups that are the target. "
            f"Received: the groups {', '.join(groups.names)}. Try the column of the target among "
            "`--groups`; `--permutations` are the exact null of all other groups."
        )
    return Membership(tuple(names), groups.mask[:, [groups.names.index(name) for name in names]])


def permuted(study, number):
    """Return a study with its target permuted over subjects, and the groups that are the target.

    Subjects are permuted within each label of `study.within`: what the target shares with these is
    kept.

    Args:
        study: `Study`.
        number: Number of the permutation, from 1; each gives the same one at all times.

    Returns:
        `Study`, with those groups alone.

    Raises:
        DataError: If no group is the target.
    """
    groups = target_groups(study)
    ids = np.arange(len(study.y)) if study.ids is None else np.asarray(study.ids)
    _, first, subject = np.unique(ids, return_index=True, return_inverse=True)
    labels = np.zeros(len(first)) if study.within is None else np.asarray(study.within)[first]
    strata, _ = pd.factorize(labels, use_na_sentinel=False)
    generator = np.random.default_rng([len(first), number])
    rows = first[permutation_within(strata, generator)][subject]
    return dataclasses.replace(study, y=study.y[rows], groups=groups[rows])


def summaries(log, number):
    """Return what is kept of a training with a permuted target.

    Args:
        log: `SpectralLog` of its probe.
        number: Number of the permutation.

    Returns:
        DataFrame like `SpectralLog.permutations`.
    """
    table = log.summary().assign(permutation=number)
    labels = [name for name in log.rows if name not in (*PERMUTATION_KEYS, *ALL_FACTS)]
    columns = ["run", *labels, *PERMUTATION_KEYS[1:], *SUMMARIES]
    return table.loc[table["group"] != ALL, columns]


def with_retrainings(log, table):
    """Return a log in which trainings with a permuted target stand in the place of permutations.

    Only looks that all trainings of a run have are kept, as early stopping may end some sooner.

    Args:
        log: `SpectralLog` of the real trainings.
        table: DataFrame of what `summaries` returned of all others.

    Returns:
        `SpectralLog`, whose provenance says `retrained`, the groups concerned.
    """
    groups = sorted(table["group"].unique())
    looks = [log.rows.assign(permutation=0), table]
    looks = pd.concat([each[[*MOMENT, "permutation"]].drop_duplicates() for each in looks])
    number = looks.groupby("run")["permutation"].transform("nunique")
    shared = looks.groupby(MOMENT)["permutation"].transform("nunique") == number
    kept = table.merge(looks.loc[shared, MOMENT].drop_duplicates(), on=MOMENT)
    others = log.permutations[~log.permutations["group"].isin(groups)]
    permutations = pd.concat([others, kept], ignore_index=True) if len(others) else kept
    provenance = {**log.provenance, "retrained": groups}
    return SpectralLog(log.rows, log.sigma, permutations, provenance)


def score_test(scores, permuted_scores):
    """Return how likely scores as good as these are with a permuted target.

    Args:
        scores: DataFrame with `auc`, a row per training.
        permuted_scores: The same of trainings with permuted targets, with their `permutation`.

    Returns:
        Dictionary: `mean_auc`, `permuted_mean_auc` (the mean over permutations), and `p`, the share
        of targets, the real one included, whose mean AUC is at least that of the real one; NaN if
        a training of the real one has no AUC, as after it has diverged. Permuted targets without an
        AUC count as at least as good.
    """
    real = scores["auc"].mean(skipna=False)
    others = permuted_scores.groupby("permutation")["auc"].agg(lambda auc: auc.mean(skipna=False))
    better = ~(others < real - TIE)
    p = np.nan if np.isnan(real) else (1 + better.sum()) / (1 + len(others))
    return {
        "mean_auc": float(real),
        "permuted_mean_auc": float(others.mean()),
        "p": float(p),
    }
