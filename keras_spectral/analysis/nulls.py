"""The text that states which null distribution a comparison used."""

from keras_spectral.analysis.labels import counted, listed
from keras_spectral.analysis.provenance import declared
from keras_spectral.groups import ALL

NO_PERMUTATIONS = "no permutations were recorded: differences only, no p-value can be given"
ALL_IS_FIXED = f"`{ALL}` is never permuted: differences only, no p-value can be given"
RETRAINED = (
    "This is the exact null of groups that are the target: what the groups differ by when the "
    "network is trained on labels without meaning"
)
FEW = 19
"""Fewer permutations than this cannot give a p-value of 0.05."""


def null_text(log, a, b, n_permutations):
    """Return the text that states which null distribution a comparison used, and what p means.

    Args:
        log: A `SpectralLog`.
        a: Group label.
        b: Group label.
        n_permutations: Number of permutations used.

    Returns:
        Text.
    """
    if ALL in (a, b):
        return ALL_IS_FIXED
    if not n_permutations:
        return NO_PERMUTATIONS
    again = {a, b} <= retrained_labels(log)
    kind = "training" if again else "permutation"
    over = f"over subjects{_within(log)}"
    how = f"with the target permuted {over}, all else repeated" if again else f"{over}, sizes kept"
    text = f"{counted(n_permutations, kind)} {how}"
    text += f"; the smallest possible p is {1 / (n_permutations + 1):.3g}"
    if n_permutations < FEW:
        text += f", so nothing can reach 0.05 (that takes {FEW} {kind}s)"
    if again:
        return f"{text}. {RETRAINED}"
    target = target_labels(log, a, b)
    return f"{text}. {target_text(target)}" if target else text


def target_text(labels):
    """Return the text that limits a permutation null where training has used the labels.

    Args:
        labels: Groups that are classes of the target.

    Returns:
        Text.
    """
    return (
        f"p is no test here: training has seen the labels ({listed(labels)}: the target), and "
        "permuted groups differ from the true ones for that reason alone. p says only how far "
        "the groups are from random ones of equal size; the exact null permutes the target over "
        "subjects and trains again"
    )


def target_labels(log, *groups):
    """Return which of some groups are classes of the target, according to the log.

    Args:
        log: A `SpectralLog`, whose provenance may name such groups, or factors such as `"sex"`
            of groups such as `"sex=F"`, under `groups_are_target`, at the top or in any run.
        *groups: Group labels to look for.

    Returns:
        List of group labels, without those whose null permutes the target and trains again.
    """
    found = [
        entry for value in declared(log.provenance, "groups_are_target") for entry in _list(value)
    ]
    again = retrained_labels(log)
    if any(entry is True for entry in found):
        return [group for group in groups if group != ALL and group not in again]
    named = {str(entry) for entry in found}
    of_target = [g for g in groups if g in named or ("=" in g and g.partition("=")[0] in named)]
    return [group for group in of_target if group not in again]


def retrained_labels(log):
    """Return the groups whose permutations are trainings with a permuted target.

    Args:
        log: A `SpectralLog`.

    Returns:
        Set of group labels.
    """
    return {str(group) for value in declared(log.provenance, "retrained") for group in value}


def _within(log):
    strata = [value for value in declared(log.provenance, "permuted_within") if value]
    if not strata:
        return ""
    return f" of the same {strata[0] if isinstance(strata[0], str) else 'stratum'}"


def _list(value):
    return [value] if isinstance(value, str | bool) else list(value or ())
