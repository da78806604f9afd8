"""Tests of ``clstudy.training``."""
