"""Tests of ``clstudy.trial``."""
