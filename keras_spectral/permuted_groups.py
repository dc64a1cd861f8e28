"""Random permutations of groups over subjects: the null distribution, recorded alike."""

import numpy as np
import pandas as pd

from keras_spectral.errors import GroupsError
from keras_spectral.groups import MAX_GROUPS, Membership


def permutations(groups, n=99, seed=0, subjects=None, within=None):
    """Return the groups together with `n` random permutations of them: the null distribution.

    Each permutation moves whole rows of labels between subjects, so group sizes, overlaps and the
    association between several factors stay as they are. The permutations are drawn once: slice
    the result (`permuted[train_rows]`) to use the same ones in every fold.

    Args:
        groups: What `fit(groups=…)` accepts, for all examples of the study.
        n: Number of permutations, at least 1. The smallest possible p-value is `1 / (n + 1)`.
        seed: Integer seed of the permutations.
        subjects: Vector with the subject of each example, if there are several examples (sessions,
            windows) per subject. `None`: each example is a subject.
        within: Vector `[n]` with the stratum of each example, such as its diagnosis or site: groups
            are permuted only among subjects of the same stratum, so an association of groups with
            strata stays as it is and cannot make a difference significant. Missing labels form a
            stratum of their own. `None`: groups are permuted over all subjects.

    Returns:
        A `Membership` with the real groups first, to pass as `groups`.

    Raises:
        GroupsError: If `n` is not positive, there are no groups, more than 512 groups would
            result, labels differ within a subject, or `within` leaves nothing to permute.

    Example:
        >>> permuted = permutations(["SZ", "HC", "HC"], n=2)
        >>> permuted.names
        ('HC', 'SZ', 'HC', 'SZ', 'HC', 'SZ')
        >>> permuted.mask.sum(axis=0)
        array([2, 1, 2, 1, 2, 1])

    Source: Winkler et al., "Multi-level block permutation", NeuroImage 123, 2015 (permutation
    within exchangeability blocks).
    """
    real = Membership.of(groups)
    if not isinstance(n, int) or n < 1:
        raise GroupsError(f"`n` must be a positive integer. Received: n={n!r}. Try n=99.")
    if not real.names or real.n_permutations:
        raise GroupsError(
            "`groups` must hold at least one group and no permutations yet. "
            f"Received: names={real.names[:5]}. Try the vector of labels itself."
        )
    most = MAX_GROUPS // len(real.names) - 1
    if n > most >= 1:
        raise GroupsError(
            f"`n` must be at most {most} for {len(real.names)} groups, so that these and their "
            f"permutations make at most {MAX_GROUPS}. Received: n={n}. "
            f"Try n={most} (`--permutations {most}`)."
        )
    subject_of, first_rows = _subjects(subjects, len(real))
    per_subject = real.mask[first_rows]
    if not np.array_equal(per_subject[subject_of], real.mask):
        bad = np.flatnonzero((per_subject[subject_of] != real.mask).any(axis=1))[0]
        raise GroupsError(
            "`groups` must be constant within a subject to be permuted over subjects. "
            f"Received: different labels within the subject of row {bad}. Try one label per "
            "subject; for conditions within subjects, `subjects=None` and the subjects as `within`."
        )
    labelled = np.flatnonzero(per_subject.any(axis=1))
    stratum = np.zeros(len(labelled), dtype=int)
    if within is not None:
        stratum = _strata(within, subject_of, first_rows)[labelled]
        blocks = [labelled[stratum == value] for value in np.unique(stratum)]
        if all((per_subject[block] == per_subject[block[:1]]).all() for block in blocks):
            raise GroupsError(
                "`within` must leave something to permute: subjects of one stratum in different "
                f"groups. Received: the groups {list(real.names[:5])}, each stratum within one of "
                "them. Try another column, or `within=None`."
            )
    generator = np.random.default_rng(seed)
    masks = [real.mask]
    for _ in range(n):
        shuffled = per_subject.copy()
        shuffled[labelled] = per_subject[labelled[permutation_within(stratum, generator)]]
        masks.append(shuffled[subject_of])
    permutation = np.repeat(np.arange(n + 1, dtype=np.int32), len(real.names))
    mask = np.concatenate(masks, axis=1)
    return Membership(real.names * (n + 1), mask, permutation, within is not None)


def permutation_within(strata, generator):
    """Return a random permutation that moves indices within their stratum only.

    Args:
        strata: Integer array `[n]`, the stratum of each index.
        generator: NumPy `Generator`.

    Returns:
        Integer array `[n]`.
    """
    permuted = np.arange(len(strata))
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        permuted[members] = generator.permutation(members)
    return permuted


def _strata(within, subject_of, first_rows):
    """Return the stratum of each subject as an integer array `[subjects]`."""
    codes, _ = pd.factorize(np.asarray(within), use_na_sentinel=False)
    if len(codes) != len(subject_of):
        raise GroupsError(
            "`within` must have one label per example. "
            f"Received: {len(codes)} labels for {len(subject_of)} examples."
        )
    if (codes[first_rows][subject_of] != codes).any():
        raise GroupsError(
            "`within` must be constant within a subject. Received: different labels within the "
            f"subject of row {np.flatnonzero(codes[first_rows][subject_of] != codes)[0]}."
        )
    return codes[first_rows]


def _subjects(subjects, n):
    if subjects is None:
        return np.arange(n), np.arange(n)
    codes, _ = pd.factorize(np.asarray(subjects))
    if len(codes) != n or (codes < 0).any():
        raise GroupsError(
            "`subjects` must have one entry per example, none missing. "
            f"Received: {len(codes)} for {n} examples, {int((codes < 0).sum())} missing."
        )
    return codes, np.unique(codes, return_index=True)[1]
