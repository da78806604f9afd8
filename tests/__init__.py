"""Tests. ``clstudy`` is imported first of all: libraries that tests import must find its telemetry switches set."""

import clstudy  # noqa: F401
