"""The trainer core, test-time inversion, evaluation and numerical settings; independent of studies."""
