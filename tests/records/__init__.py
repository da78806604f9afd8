"""Tests of ``clstudy.records``."""
