"""Logs: the table of recorded spectra, its summaries, and its files. Needs no TensorFlow."""

from keras_spectral.log.reading import read_log
from keras_spectral.log.spectral_log import SpectralLog

__all__ = ["SpectralLog", "read_log"]
