"""Tests of ``clstudy.assets``."""
