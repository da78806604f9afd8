"""How the packaged generator was trained: ``python -m clstudy.generators.pretraining``."""
