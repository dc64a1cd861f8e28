"""The columns of a log, in order."""

from collections.abc import Mapping

from keras_spectral.errors import LogError

KEYS = ("run", "epoch", "step", "layer", "weight", "quantity", "group")
"""Identify a row. Run labels such as `fold` and `seed` may stand between `run` and `epoch`."""

FACTS = ("n_examples", "batch_size", "n_rows", "rank_bound", "frobenius_norm", "truncated")
"""Describe a row: examples of the group in the batch, examples in the batch, rows of the matrix,
largest possible rank, exact Frobenius norm, and whether small singular values are missing."""

RESIDUAL = "residual_norm"
"""A further fact of logs recorded with `method="subspace"`: the Frobenius norm of the part of the
matrix outside the subspace. It bounds the errors, see `SpectralLog.sigma_error`."""

ALL_FACTS = (*FACTS, RESIDUAL)
"""Every column that describes a row and does not identify it."""

PERMUTATION_KEYS = (*KEYS, "permutation", "n_examples", "batch_size", "n_rows")
"""Columns of the permutations table, followed by one column per summary."""

TEXT = ("run", "layer", "weight", "quantity", "group")
WHOLE_NUMBERS = ("epoch", "step", "n_examples", "batch_size", "n_rows", "rank_bound", "permutation")


def sigma_columns(k):
    """Return the names `sigma_1 … sigma_k`."""
    return [f"sigma_{j}" for j in range(1, k + 1)]


def require_run_labels(labels):
    """Raise if a label of a run has the name of another column.

    Args:
        labels: Mapping from label names to values.

    Raises:
        LogError: If one has.
    """
    taken = [name for name in labels if name in (*KEYS, *ALL_FACTS, *PERMUTATION_KEYS)]
    taken += [name for name in labels if str(name).startswith("sigma_")]
    if taken:
        raise LogError(
            "`run` must use labels that are no columns of a log. "
            f"Received: run={dict(labels)}, with {taken}. Try other names, such as `fold`."
        )


def require_unique_keys(rows):
    """Raise if two rows have the same keys.

    Args:
        rows: DataFrame of keys and facts.

    Raises:
        LogError: If keys are repeated.
    """
    keys = [column for column in rows if column not in ALL_FACTS]
    duplicate = rows.duplicated(keys)
    if duplicate.any():
        first = rows.loc[duplicate.idxmax(), keys].to_dict()
        raise LogError(
            "A log must hold each (run, epoch, step, layer, weight, quantity, group) once. "
            f"Received: {int(duplicate.sum())} repeated rows, the first being {first}. Were "
            "several runs mixed? Try `SpectralLog.concat({'run name': log, …})`, or "
            "`SpectralCSVLogger(path, run=…)` when recording."
        )


def of_run(rows, run):
    """Return rows with another run label.

    Args:
        rows: DataFrame with the keys.
        run: As in `SpectralLog.with_run`.

    Raises:
        LogError: If a label has the name of another column.
    """
    labels = dict(run) if isinstance(run, Mapping) else {}
    require_run_labels(labels)
    text = " ".join(f"{key}={value}" for key, value in labels.items()) or str(run)
    kept = rows.drop(columns=[c for c in ("run", *labels) if c in rows])
    for position, (name, value) in enumerate({"run": text, **labels}.items()):
        kept.insert(position, name, value)
    return kept
