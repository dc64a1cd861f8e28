"""Log rows as input of the summaries, and the size correction of their norms."""

from keras_spectral.summaries import NORMS, SpectrumTable, size_correction


def spectrum_table(rows, sigma):
    """Return log rows as the `SpectrumTable` that summaries take.

    Args:
        rows: DataFrame with `frobenius_norm` and `truncated`.
        sigma: Array `[r, k]`.

    Returns:
        A `SpectrumTable`.
    """
    return SpectrumTable(
        sigma, rows["frobenius_norm"].to_numpy(dtype=float), rows["truncated"].to_numpy(dtype=bool)
    )


def size_corrected_norms(table):
    """Return a table of summaries whose norms are multiplied by `size_correction`.

    Args:
        table: DataFrame with `quantity`, `n_examples`, `batch_size`, `n_rows` and summaries.

    Returns:
        A new DataFrame.
    """
    columns = ("quantity", "n_examples", "batch_size", "n_rows")
    factor = size_correction(*(table[column].to_numpy() for column in columns))
    norms = [name for name in NORMS if name in table]
    return table.assign(**{name: table[name] * factor for name in norms})
