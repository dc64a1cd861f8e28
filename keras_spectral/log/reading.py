"""Reading of logs from files. Needs no TensorFlow."""

from pathlib import Path

from keras_spectral.log import files
from keras_spectral.log.schema import require_unique_keys
from keras_spectral.log.spectral_log import SpectralLog


def read_log(path):
    """Read a log that was written by `to_csv`, `to_parquet` or `SpectralCSVLogger`.

    Args:
        path: The `.csv`, `.csv.gz` or `.parquet` file. Permutations and provenance are read from
            the files beside it, if they are there.

    Returns:
        A `SpectralLog` equal to the written one, value for value.

    Raises:
        LogError: If the file is missing, has another schema, is cut off, or mixes runs.

    Example:
        >>> read_log("nowhere.csv")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        keras_spectral.errors.LogError: `path` must be a log file. Received: nowhere.csv, ...
    """
    path = Path(path)
    table = files.read_table(path)
    columns = [column for column in table if column.startswith("sigma_")]
    rows, sigma = table.drop(columns=columns), table[columns].to_numpy(dtype=float)
    require_unique_keys(rows)
    return SpectralLog(rows, sigma, files.read_permutations(path), files.read_provenance(path))
