"""Log rows as input of the summaries, and the size correction of their norms."""

from keras_spectral.errors import LogError
from keras_spectral.summaries import NORMS, SUMMARIES, SpectrumTable, size_correction


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


def summary_table(rows, sigma, names=(), size_corrected=False):
    """Return log rows with summaries of their spectra.

    Args:
        rows: DataFrame of keys and facts.
        sigma: Array `[r, k]`.
        names: Names of summaries; none means all.
        size_corrected: Whether norms are multiplied by `size_correction`.

    Returns:
        A new DataFrame with one more column per summary.

    Raises:
        LogError: If a name is unknown.
    """
    unknown = [name for name in names if name not in SUMMARIES]
    if unknown:
        raise LogError(f"Summaries must be among {list(SUMMARIES)}. Received: {unknown}.")
    table, result = spectrum_table(rows, sigma), rows.copy()
    for name in names or SUMMARIES:
        result[name] = SUMMARIES[name](table)
    return size_corrected_norms(result) if size_corrected else result
