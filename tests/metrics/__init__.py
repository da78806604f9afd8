"""Tests of ``clstudy.metrics``."""
