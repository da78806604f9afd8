"""Tests of ``clstudy.storage``."""
