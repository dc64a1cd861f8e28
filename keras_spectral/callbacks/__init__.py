"""Callbacks for `fit`: a CSV writer, and evaluations of a fixed set of examples."""

from keras_spectral.callbacks.csv import SpectralCSVLogger
from keras_spectral.callbacks.probe import SpectralProbe

__all__ = ["SpectralCSVLogger", "SpectralProbe"]
