"""Half of the tests beside the other half (``pytest -n 2``): then each process has one core to itself.

PyTorch's threads wait for each other in a loop; two processes with two threads each on two cores take several times as
long as with one. What is tested runs its trials on one thread anyway.
"""

from __future__ import annotations

import os

if "PYTEST_XDIST_WORKER" in os.environ:  # before a test module imports torch or numpy
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
