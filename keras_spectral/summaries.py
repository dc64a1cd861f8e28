"""Summaries of spectra: each is a function of the singular values alone.

All functions take a `SpectrumTable` of `r` spectra and return one number per spectrum, shape `[r]`.
A spectrum of zeros has rank 0; summaries that divide by its sum or norm are NaN. A summary that
needs the whole spectrum is NaN where `truncated` is true.
"""

from dataclasses import dataclass

import numpy as np

RANK_TOLERANCE = 1e-5
"""Singular values below `RANK_TOLERANCE * sigma_1` count as zero in `numerical_rank`: well above
float32 rounding (about 1e-7 per operation), well below anything a float32 network learns."""


@dataclass(frozen=True)
class SpectrumTable:
    """Spectra of possibly different lengths, as one padded table.

    Attributes:
        sigma: Array `[r, k]`, singular values, largest first, NaN beyond a row's own length.
        frobenius_norm: Array `[r]`, the exact Frobenius norm, also of truncated spectra.
        truncated: Boolean array `[r]`, true where small singular values were not recorded.
    """

    sigma: np.ndarray
    frobenius_norm: np.ndarray
    truncated: np.ndarray


def spectral_norm(table):
    """Return the largest singular value, `sigma_1`."""
    return _first(table.sigma)


def frobenius_norm(table):
    """Return the Frobenius norm `sqrt(sum sigma_k^2)`, exact also for truncated spectra."""
    return np.asarray(table.frobenius_norm, dtype=float)


def nuclear_norm(table):
    """Return the nuclear norm `sum sigma_k`."""
    return _whole(table, _total(table.sigma))


def effective_rank(table):
    """Return `exp(H(p))`, `p_k = sigma_k / sum sigma`, with `H` the Shannon entropy in nats.

    Source: Roy and Vetterli, "The effective rank: a measure of effective dimensionality",
    EUSIPCO 2007.
    """
    share = _share(table.sigma)
    log_share = np.log(share, out=np.zeros_like(share), where=share > 0)
    entropy = -np.nansum(share * log_share, axis=1)
    return _whole(table, np.where(_positive(table.sigma), np.exp(entropy), np.nan))


def stable_rank(table):
    """Return `||M||_F^2 / sigma_1^2`, a lower bound of the rank that is robust to small noise.

    Source: Rudelson and Vershynin, "Sampling from large matrices", J. ACM 54(4), 2007.
    """
    return (frobenius_norm(table) / _nonzero(_first(table.sigma))) ** 2


def participation_ratio(table):
    """Return `(sum sigma_k^2)^2 / sum sigma_k^4`: how many directions share the energy.

    Source: Gao et al., "A theory of multineuronal dimensionality, dynamics and measurement",
    bioRxiv 214262, 2017.
    """
    relative = table.sigma / _nonzero(_first(table.sigma))[:, None]
    ratio = np.nansum(relative**2, axis=1) ** 2 / _nonzero(np.nansum(relative**4, axis=1))
    return _whole(table, ratio)


def numerical_rank(table, tolerance=RANK_TOLERANCE):
    """Return the number of singular values above `tolerance * sigma_1`.

    Source: Golub and Van Loan, "Matrix Computations", section 5.4.1.
    """
    first = _first(table.sigma)
    above = table.sigma > tolerance * first[:, None]
    rank = np.where(np.isnan(first), np.nan, above.sum(axis=1).astype(float))
    complete = ~np.asarray(table.truncated) | (rank < _lengths(table.sigma))
    return np.where(complete, rank, np.nan)


def energy(table, k):
    """Return the share of the squared Frobenius norm in the `k` largest singular values.

    Args:
        table: A `SpectrumTable`.
        k: Positive integer. The result is NaN where a truncated spectrum has fewer values.
    """
    relative = table.sigma[:, :k] / _nonzero(frobenius_norm(table))[:, None]
    share = np.nansum(relative**2, axis=1)
    known = ~np.asarray(table.truncated) | (_lengths(table.sigma) >= k)
    return np.where(known & _positive(table.sigma), np.minimum(share, 1.0), np.nan)


SUMMARIES = {
    "spectral_norm": spectral_norm,
    "frobenius_norm": frobenius_norm,
    "nuclear_norm": nuclear_norm,
    "effective_rank": effective_rank,
    "stable_rank": stable_rank,
    "participation_ratio": participation_ratio,
    "numerical_rank": numerical_rank,
}
"""All summaries by name."""

COMPARED = tuple(name for name in SUMMARIES if name != "numerical_rank")
"""The summaries that comparisons use by default. `numerical_rank` is not among them: late in
training, where adjoints are small, it counts rounding errors."""

NORMS = ("spectral_norm", "frobenius_norm", "nuclear_norm")
"""The summaries that scale with the matrix: the size correction applies to them."""


def size_correction(quantity, n_examples, batch_size, n_rows):
    """Return the factor that makes norms of groups of different sizes comparable.

    With `n_g` examples of a group in a batch of `n`, and `r_g` rows:

    - gradient: `n / n_g`. A batch-mean loss leaves `1/n` in every row, so `G_g n / n_g` is the
      group's mean gradient.
    - adjoint: `n / sqrt(r_g)`, the root-mean-square over rows with that `1/n` taken out.
    - activation: `1 / sqrt(r_g)`, the root-mean-square over rows.

    The correction makes norms comparable on average. It does not apply to ranks: a larger group
    still has more directions.

    Args:
        quantity: Array of `"activation"`, `"adjoint"`, `"gradient"`.
        n_examples: Array, examples of the group in the batch, `n_g`.
        batch_size: Array, examples in the batch, `n`.
        n_rows: Array, rows of the group's matrix, `r_g`.

    Returns:
        Array of positive factors, by which singular values and norms are multiplied.
    """
    quantity = np.asarray(quantity, dtype=str)
    rows = np.sqrt(np.asarray(n_rows, dtype=float))
    batch = np.asarray(batch_size, dtype=float)
    return np.select(
        [quantity == "gradient", quantity == "adjoint", quantity == "activation"],
        [batch / np.asarray(n_examples, dtype=float), batch / rows, 1.0 / rows],
        default=np.nan,
    )


def sigma_errors(sigma, residual_norm):
    """Return how far singular values may be from the exact ones: never more, often much less.

    Args:
        sigma: Array `[r, k]`, singular values as they were found.
        residual_norm: Array `[r]`, the Frobenius norm of what a subspace missed; NaN where singular
            values were found exactly.

    Returns:
        Array `[r, k]`: `sqrt(sigma² + residual_norm²) - sigma`, 0 where found exactly.

    Source: Horn and Johnson, "Matrix Analysis", theorem 4.3.1 (Weyl).
    """
    residual = np.nan_to_num(np.asarray(residual_norm, dtype=float))[:, None]
    return np.hypot(sigma, residual) - sigma


def _first(sigma):
    return sigma[:, 0] if sigma.shape[1] else np.full(len(sigma), np.nan)


def _lengths(sigma):
    return (~np.isnan(sigma)).sum(axis=1)


def _nonzero(values):
    return np.where(values == 0, np.nan, values)


def _total(sigma):
    return np.where(np.isnan(_first(sigma)), np.nan, np.nansum(sigma, axis=1))


def _positive(sigma):
    return np.nan_to_num(_first(sigma)) > 0


def _share(sigma):
    return sigma / _nonzero(_total(sigma))[:, None]


def _whole(table, values):
    return np.where(np.asarray(table.truncated), np.nan, values)
