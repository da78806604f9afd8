"""Tests of ``clstudy.identities``."""
