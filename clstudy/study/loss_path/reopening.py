"""Opens a finished study to compute with again: its photos, its generator and its stored stages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from clstudy.errors import UserError
from clstudy.generators import load_generators
from clstudy.generators.base import GENERATORS
from clstudy.identities.dataset import DataSet
from clstudy.records.study_record import read_complete_record
from clstudy.settings.trial_spec import TrialSpec
from clstudy.storage.content_addressed_store import StudyStore
from clstudy.study.preflight import equip
from clstudy.study.stored_study import stored_metrics, stored_photos, stored_profile
from clstudy.training.numerics import configure_torch, loss_lpips, torch_device
from clstudy.trial.requests import Basis, StageRequest, stage_requests
from clstudy.trial.stage_runner import StageRunner


@dataclass(frozen=True, kw_only=True)
class Reopened:
    """A finished study, ready to compute with again; its stages' keys were made from ``basis``."""

    runner: StageRunner
    basis: Basis
    data: DataSet
    notes: tuple[str, ...]

    def requests(self, trials: Sequence[TrialSpec]) -> dict[str, StageRequest]:
        """The trials' stages by key, needed to train a stage again if its weights were dropped."""
        people = {identity.name: identity for identity in self.data.identities}
        return {
            request.key: request
            for spec in trials
            for request in stage_requests(spec, people[spec.identity], self.basis, self.runner.remember)
        }


def reopen(study: Path, *, weights: Sequence[str], data: str | None, device: str | None) -> Reopened:
    """Build the stage runner of a study from its folder (and weights and photos from outside it, if it used any).

    Raises:
        UserError: the folder is not a study, or photos or weights are missing or differ from the study's.
    """
    record = read_complete_record(study)
    stored = stored_profile(record)
    photos = stored_photos(study, record, data)
    # only the generator is needed: no metric is computed, so no metric's weights
    lean = replace(
        stored,
        required_files=tuple(role for role in stored.required_files if role == "generator"),
        evaluation=replace(
            stored.evaluation, metrics=("lpips",), synthesis_images=0, lpips_backend="packaged", lpips_network="alex"
        ),
    )
    equipment = equip(lean, weights=weights, device=device, data=str(photos.root))
    if equipment.generator_digest != record.generator:
        raise UserError(
            f"the generator here is not the one study {record.name!r} was made with (or its encoder is not): "
            f"digest {equipment.generator_digest[:12]}…, expected {record.generator[:12]}…; name the right files "
            "with --weights"
        )
    profile = equipment.profile
    basis = Basis(profile, equipment.generator_digest)
    notes = []
    if basis.fingerprint() != record.fingerprint:
        now, then = (
            {f"{key} {value}" for key, value in one.items()} for one in (basis.fingerprint(), record.fingerprint)
        )
        notes.append(
            f"computed with {', '.join(sorted(now - then))}, the study with {', '.join(sorted(then - now))}: last "
            "digits may differ, and starting latents are computed again"
        )
    place = torch_device(profile.resources)
    notes += configure_torch(profile.compute, profile.resources)
    load_generators()
    lpips = loss_lpips(profile.compute, place)
    kind = GENERATORS[profile.generator]
    generator = kind.build(kind.read(equipment.files), profile, place, lpips)
    runner = StageRunner.personalising(
        basis=basis, generator=generator, lpips=lpips, metrics=[], store=StudyStore(study)
    )
    own = Basis(
        replace(profile, evaluation=stored.evaluation),
        equipment.generator_digest,
        record.metric_files or {},
        stored_metrics(record),
    )
    return Reopened(runner=runner, basis=own, data=photos, notes=tuple(notes))
