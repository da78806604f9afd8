"""Tests of ``clstudy.faces``."""
