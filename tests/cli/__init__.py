"""Tests of ``clstudy.cli``."""
