"""What was recorded: the table, its summaries, and its files. Needs no TensorFlow."""

from keras_spectral.log.spectral_log import SpectralLog, read_log

__all__ = ["SpectralLog", "read_log"]
