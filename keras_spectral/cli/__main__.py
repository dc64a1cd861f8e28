"""`python -m keras_spectral.cli`, if the script `keras-spectral` is not on the path."""

from keras_spectral.cli import main

main()
