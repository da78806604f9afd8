"""``python -m clstudy.cluster.slurm_nodes ADDRESS COUNT``: wait until so many nodes have joined a Ray cluster."""

from __future__ import annotations

import sys
import time

from clstudy.cluster.nodes import living_nodes, ray_complaint
from clstudy.cluster.ray_session import start_ray

SECONDS, _PAUSE = 600.0, 2.0


def await_nodes(address: str, count: int, seconds: float = SECONDS) -> int:
    """How many nodes the cluster has once there are ``count`` of them, or when the time is over."""
    deadline = time.monotonic() + seconds
    while ray_complaint(address) != "":  # looked at in a process of its own, which ends in seconds
        if time.monotonic() > deadline:
            return 0
        time.sleep(_PAUSE)
    start_ray(address)
    while (found := len(living_nodes())) < count and time.monotonic() < deadline:
        time.sleep(_PAUSE)
    return found


def main() -> int:
    """Entry point; returns the exit code."""
    address, count = sys.argv[1], int(sys.argv[2])
    found = await_nodes(address, count)
    if found < count:
        print(f"error: {found} of {count} nodes joined Ray in {SECONDS:.0f} s; why: …-ray-*.log here", file=sys.stderr)
    return 0 if found >= count else 2


if __name__ == "__main__":
    sys.exit(main())
