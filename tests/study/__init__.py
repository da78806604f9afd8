"""Tests of ``clstudy.study``."""
