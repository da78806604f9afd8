"""Tests of ``clstudy.analysis``."""
