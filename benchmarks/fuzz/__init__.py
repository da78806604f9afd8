"""Damages every kind of file that clstudy reads and counts what becomes of it: ``python -m benchmarks.fuzz``."""
