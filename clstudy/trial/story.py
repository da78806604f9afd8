"""One trial: the fold over timestamps. The one place where a trial's story is told.

For each timestamp: take the stage from the store or personalise and evaluate; then let the strategy choose what
to remember. Knows nothing of Ray or MLflow: it tells a listener what happened.
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
        PhotoError: a photo cannot be read or is not the one that was planned with.
        TrainingDivergedError: the loss is not finite, or beyond all sense; the message says timestamp and step.
        NotFiniteError: an image, a latent or a metric's value is not finite; the message says which.
        TooLittleMemoryError: the GPU has no room for one photo at a time.
    """
    for request in stage_requests(spec, identity, runner.basis, runner.remember):
        yield request, runner.stage(request, listener)
