"""Cross-validated runs: what is studied, how it is trained, where a run lives."""
