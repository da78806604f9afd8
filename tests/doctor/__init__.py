"""Tests of ``clstudy.doctor``."""
