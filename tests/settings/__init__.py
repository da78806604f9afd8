"""Tests of ``clstudy.settings``."""
