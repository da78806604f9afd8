"""What a stage does: how its state is trained on a person's photos, and how it is scored.

One file each, registered by name; the import line is where a new one is added.
"""

from clstudy.workloads import personalise as personalise
from clstudy.workloads.base import WORKLOADS, WorkloadKind, workload_of

__all__ = ["WORKLOADS", "WorkloadKind", "workload_of"]
