"""The columns of a log, in order."""

KEYS = ("run", "epoch", "step", "layer", "weight", "quantity", "group")
"""Identify a row. Run labels such as `fold` and `seed` may stand between `run` and `epoch`."""

FACTS = ("n_examples", "batch_size", "n_rows", "rank_bound", "frobenius_norm", "truncated")
"""Describe a row: examples of the group in the batch, examples in the batch, rows of the matrix,
largest possible rank, exact Frobenius norm, and whether small singular values were left out."""

RELABELING_KEYS = (*KEYS, "relabeling", "n_examples", "batch_size", "n_rows")
"""Columns of the relabelings table, followed by one column per summary."""

TEXT = ("run", "layer", "weight", "quantity", "group")
WHOLE_NUMBERS = ("epoch", "step", "n_examples", "batch_size", "n_rows", "rank_bound", "relabeling")


def sigma_columns(k):
    """Return the names `sigma_1 … sigma_k`."""
    return [f"sigma_{j}" for j in range(1, k + 1)]
