"""Tests of ``clstudy.strategies``."""
