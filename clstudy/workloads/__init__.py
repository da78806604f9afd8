"""Workloads: what a stage does, i.e. how its state is trained on a person's photos, and how it is scored.

Each has one file and is registered by name; a new one needs an import line here.
"""

from clstudy.workloads import ageing as ageing
from clstudy.workloads import class_gan as class_gan
from clstudy.workloads import personalise as personalise
from clstudy.workloads import personalise_3d as personalise_3d
from clstudy.workloads.base import WORKLOADS, WorkloadKind, workload_of

__all__ = ["WORKLOADS", "WorkloadKind", "workload_of"]
