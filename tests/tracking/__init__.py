"""Tests of ``clstudy.tracking``."""
