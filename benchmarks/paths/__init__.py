"""The hot paths by name, in the order of the table."""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.paths.analysing import Analysis, LargeAnalysis
from benchmarks.paths.arithmetic import (
    IdentityEmbedding,
    InversionStep,
    LongStudyStage,
    Lpips,
    PersonaliseStep,
    Stage,
)
from benchmarks.paths.base import HotPath
from benchmarks.paths.choosing import HullSelection
from benchmarks.paths.storing import Orchestration, Store, Tracking
from benchmarks.paths.studies import HullSizes, Smoke

PATHS: Mapping[str, type[HotPath]] = {
    "personalise": PersonaliseStep,
    "inversion": InversionStep,
    "stage": Stage,
    "long_stage": LongStudyStage,
    "lpips": Lpips,
    "identity": IdentityEmbedding,
    "hull": HullSelection,
    "store": Store,
    "mlflow": Tracking,
    "orchestration": Orchestration,
    "analysis": Analysis,
    "analysis_10m": LargeAnalysis,
    "smoke": Smoke,
    "hull_sizes": HullSizes,
}
