"""The mathematics of spectra: groups, factors, singular values, summaries. Knows no Keras."""
