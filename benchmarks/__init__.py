"""The overhead of recording, measured."""
