"""clstudy: which memory of the past keeps a personalised face generator from forgetting, and how sure can we be?

    import clstudy

    study = clstudy.run_study("smoke", out="runs/first")      # as `clstudy run --space smoke --out runs/first`
    study = clstudy.open_study("runs/first")                  # or one that is there: a folder or s3://…
    study.scores.to_pandas()                                  # AIP, Forgetting, … with intervals
    study.compare("er_rand").to_pandas()                      # paired differences
    study.rows, study.stages, study.answer(), study.report()

What is named in ``__all__`` is the public interface, with what ``docs`` and ``CONTRIBUTING.md`` name for extensions.
Importing the package loads nothing else: each name is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from clstudy.errors import require_supported_system
from clstudy.settings.version import __version__
from clstudy.tracking.telemetry import switch_off

switch_off()  # before any library that would report something can be imported

if TYPE_CHECKING:
    from clstudy.cluster.unwatched import run_study as run_study
    from clstudy.errors import UserError as UserError
    from clstudy.generators.base import DomainGenerator as DomainGenerator
    from clstudy.generators.base import GeneratorKind as GeneratorKind
    from clstudy.generators.base import GeneratorWeights as GeneratorWeights
    from clstudy.metrics.base import Metric as Metric
    from clstudy.records.rows import Row as Row
    from clstudy.settings.metric_facts import MetricFacts as MetricFacts
    from clstudy.settings.profiles import Profile as Profile
    from clstudy.strategies.base import Item as Item
    from clstudy.strategies.base import Memory as Memory
    from clstudy.strategies.base import PhotoStrategy as PhotoStrategy
    from clstudy.strategies.base import Strategy as Strategy
    from clstudy.study.run_options import RunOptions as RunOptions
    from clstudy.study.study_results import StudyResults as StudyResults
    from clstudy.study.study_results import open_study as open_study
    from clstudy.workloads.base import WorkloadKind as WorkloadKind
    from clstudy.workloads.packing import packed as packed
    from clstudy.workloads.packing import unpack as unpack
    from clstudy.workloads.workload import ScoredStage as ScoredStage
    from clstudy.workloads.workload import TrainedStage as TrainedStage
    from clstudy.workloads.workload import Workload as Workload

_PUBLIC = {
    "DomainGenerator": "clstudy.generators.base",
    "GeneratorKind": "clstudy.generators.base",
    "GeneratorWeights": "clstudy.generators.base",
    "Item": "clstudy.strategies.base",
    "Memory": "clstudy.strategies.base",
    "Metric": "clstudy.metrics.base",
    "MetricFacts": "clstudy.settings.metric_facts",
    "open_study": "clstudy.study.study_results",
    "packed": "clstudy.workloads.packing",
    "PhotoStrategy": "clstudy.strategies.base",
    "Profile": "clstudy.settings.profiles",
    "Row": "clstudy.records.rows",
    "run_study": "clstudy.cluster.unwatched",
    "RunOptions": "clstudy.study.run_options",
    "ScoredStage": "clstudy.workloads.workload",
    "Strategy": "clstudy.strategies.base",
    "StudyResults": "clstudy.study.study_results",
    "TrainedStage": "clstudy.workloads.workload",
    "unpack": "clstudy.workloads.packing",
    "UserError": "clstudy.errors",
    "Workload": "clstudy.workloads.workload",
    "WorkloadKind": "clstudy.workloads.base",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name != "UserError":  # by which the refusal can be caught
        require_supported_system()
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
