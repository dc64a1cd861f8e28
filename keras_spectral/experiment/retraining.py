"""The exact null of groups that are the target: the whole experiment with a permuted target.

Training uses the labels of such groups, so permuted groups differ from them for that reason alone.
Here the target itself is permuted over subjects, and everything is repeated with it: folds,
training, early stopping, probes.

Source: Ojala and Garriga, "Permutation tests for studying classifier performance", J. Mach. Learn.
Res. 11, 2010 (test 1).
"""

import dataclasses

import numpy as np
import pandas as pd

from keras_spectral.errors import DataError
from keras_spectral.groups import ALL, Membership
from keras_spectral.log import SpectralLog
from keras_spectral.log.schema import ALL_FACTS, PERMUTATION_KEYS
from keras_spectral.permuted_groups import permutation_within
from keras_spectral.provenance import groups_are_target
from keras_spectral.summaries import SUMMARIES

MOMENT = ["run", "epoch", "step"]
TIE = 1e-9
"""AUCs that differ by less are ties: means of equal numbers differ by rounding."""


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

    Subjects are permuted within each label of `study.within`, so an association of the target with
    these labels stays as it is.

    Args:
        study: `Study`.
        number: Number of the permutation, from 1; it is the seed of the permutation.

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
    """Return the summaries of a training with a permuted target.

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
    """Return a log whose permutations of target groups are trainings with permuted targets.

    Only evaluations that all trainings of a run have are used: early stopping may end some sooner.

    Args:
        log: `SpectralLog` of the real trainings.
        table: DataFrame, the results of `summaries` of all other trainings.

    Returns:
        `SpectralLog`; the entry `retrained` of its provenance lists the groups concerned.
    """
    groups = sorted(table["group"].unique())
    tables = [log.rows.assign(permutation=0), table]
    moments = pd.concat([each[[*MOMENT, "permutation"]].drop_duplicates() for each in tables])
    number = moments.groupby("run")["permutation"].transform("nunique")
    shared = moments.groupby(MOMENT)["permutation"].transform("nunique") == number
    used = table.merge(moments.loc[shared, MOMENT].drop_duplicates(), on=MOMENT)
    others = log.permutations[~log.permutations["group"].isin(groups)]
    permutations = pd.concat([others, used], ignore_index=True) if len(others) else used
    provenance = {**log.provenance, "retrained": groups}
    return SpectralLog(log.rows, log.sigma, permutations, provenance)


def score_test(scores, permuted_scores):
    """Return the permutation p-value of the scores.

    Args:
        scores: DataFrame with `auc`, a row per training.
        permuted_scores: DataFrame with `auc` and `permutation`, a row per training with a
            permuted target.

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
