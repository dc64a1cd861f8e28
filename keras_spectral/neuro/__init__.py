"""Neuroimaging in: tables of subjects, simulated ones, and the models of the COBRE examples."""
