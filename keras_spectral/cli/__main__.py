"""`python -m keras_spectral.cli`, for where the script is not on the path."""

from keras_spectral.cli import main

main()
