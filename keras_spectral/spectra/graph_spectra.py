"""Singular values found in the graph, where the data is.

By `tf.linalg.svd` of the matrices themselves, or without, where they are known (`tokens`).

Letters: `g` group (the whole batch first), `r` record, `d` singular values of the whole batch, `b`
block.
"""

from keras_spectral.spectra.kept_by_group import KeptByGroup


class GraphSpectra(KeptByGroup):
    """One matrix, named by the one pair of `wanted`.

    A step keeps one float64 tensor `[1 + g, 1 + d]`: Frobenius norm, then singular values.
    """

    def spectra_of(self, kept, records, groups):
        """Return `(sigma, norm)` of some blocks `[b]` of what was kept, `[r, 1 + g, 1 + d]`."""
        found = kept[records, groups][:, None]
        return found[..., 1:], found[..., 0]
