"""The trainer core, test-time inversion, evaluation and how exactly they compute. Knows nothing of studies."""
