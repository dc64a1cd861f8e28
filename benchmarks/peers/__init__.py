"""What one would use instead of keras_spectral, timed on the same work.

A module per family of peers offers functions that make a `Peer` of a `Task`. Each is run in a
process of its own (`child.py`), so that PyTorch and TensorFlow never share one, a peer that takes
too long can be ended, and the peak of its memory is its own.
"""
