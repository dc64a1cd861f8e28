"""Neuroimaging: loaders of subjects' data, simulated data, and models for the COBRE examples."""
