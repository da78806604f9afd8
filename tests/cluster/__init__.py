"""Tests of ``clstudy.cluster``."""
