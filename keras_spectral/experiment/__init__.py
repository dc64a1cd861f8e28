"""Cross-validated runs: subjects and plan, training of the folds, and the folder of a run."""
