"""Figures of a log. Each function returns a matplotlib `Figure`; none shows or saves it.

Save one with `figure.savefig("trajectories.png", dpi=150)`; a notebook displays it.
"""

from keras_spectral.analysis.figures.spectra import spectra
from keras_spectral.analysis.figures.trajectories import trajectories
from keras_spectral.analysis.figures.z_map import z_map

__all__ = ["spectra", "trajectories", "z_map"]
