"""One trial as a fold over timestamps. This is the only place that shows a trial from beginning to end.

For each timestamp, read the stage from the store, or train and evaluate it; then let the strategy choose what to
remember. This module depends on neither Ray nor MLflow: it reports to a listener.
"""

from __future__ import annotations

from collections.abc import Iterator

from clstudy.identities.dataset import Identity
from clstudy.settings.trial_spec import TrialSpec
from clstudy.trial.listener import Listener, StageReport
from clstudy.trial.requests import StageRequest, stage_requests
from clstudy.trial.stage_runner import StageRunner


def trial_stages(
    runner: StageRunner, spec: TrialSpec, identity: Identity, listener: Listener
) -> Iterator[tuple[StageRequest, StageReport]]:
    """Run or resume one trial, stage by stage.

    Raises:
        PhotoError: a photo cannot be read, or is not the one that the plan was made with.
        TrainingDivergedError: the loss is not finite or absurdly large; the message says timestamp and step.
        NotFiniteError: an image, a latent or a metric's value is not finite; the message says which.
        TooLittleMemoryError: the GPU has no room even for one photo at a time.
    """
    for request in stage_requests(spec, identity, runner.basis, runner.remember):
        yield request, runner.stage(request, listener)
