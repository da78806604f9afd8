"""Readers of files from outside the package, within bounds and without running anything that a file contains."""
