"""Tests of ``clstudy.generators``."""
