"""Tests. ``clstudy`` is imported first of all: libraries that tests import must find its telemetry switches set."""

import clstudy  # noqa: F401, I001
from hypothesis import settings

# Time limits of a test stop what hangs; they do not measure. A busy machine is up to ten times slower than a quiet one.
settings.register_profile("patient", settings.default, deadline=None)
settings.load_profile("patient")
