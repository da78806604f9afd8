"""Reads a study back from its folder: settings, trials, stage keys, photos (no torch, no Ray)."""

from __future__ import annotations

from pathlib import Path

from clstudy.errors import UserError
from clstudy.identities.catalogue import DATA_SETS, open_data_set
from clstudy.identities.dataset import DataSet
from clstudy.records.results import result_keys, result_path
from clstudy.records.study_record import CompleteRecord, StudyRecord
from clstudy.settings.metric_facts import OwnMetric
from clstudy.settings.profile_documents import profile_from_document
from clstudy.settings.profiles import Profile
from clstudy.settings.trial_spec import TrialSpec
from clstudy.trial.requests import Basis, identity_digest, version_digest


def stored_profile(record: CompleteRecord) -> Profile:
    """The profile that a study used, as it was then; settings added since have their defaults.

    Raises:
        UserError: this version does not know a setting, or a class of the user's own cannot be imported.
    """
    return profile_from_document(record.profile)


def stored_metrics(record: CompleteRecord) -> tuple[OwnMetric, ...]:
    """Metrics that a study has beyond the packaged ones, with facts and sources as they were when it was planned.

    The files that define them need not be there.

    Raises:
        UserError: as ``stored_profile``.
    """
    profile = stored_profile(record)
    computed = profile.evaluation.metrics
    return tuple(
        one for one in record.metrics if one.place in computed or one.place == f"{profile.workload}:{one.facts.name}"
    )


def stored_trials(record: StudyRecord) -> tuple[TrialSpec, ...]:
    """The planned trials, in the plan's order."""
    return tuple(entry.spec for entry in record.trials)


def stored_version(record: CompleteRecord, spec: TrialSpec) -> str:
    """``clstudy.trial.requests.run_version`` of a trial from what ``study.yaml`` says; the photos need not be there.

    Raises:
        UserError: a strategy of the user's own cannot be imported, or a person's photos have no digest.
    """
    basis = Basis(stored_profile(record), record.generator, record.metric_files or {}, stored_metrics(record))
    photos = record.digest_of_photos(spec.identity)
    return version_digest(basis, spec, fingerprint=record.fingerprint, photos=photos)


def stage_keys(study: Path, trial_id: str) -> list[str] | None:
    """Keys of a finished trial's stages, in order; None if the trial has no (readable, undamaged) result."""
    return list(result_keys(result_path(study, trial_id))) or None


def stored_photos(study: Path, record: CompleteRecord, data: str | None = None) -> DataSet:
    """The photos that a study used, checked against its digests.

    Args:
        study: folder of the study; a packaged data set is (or is created) beside it.
        record: its ``study.yaml``.
        data: data set or photo folder, if the study's own has moved.

    Raises:
        UserError: they are missing, or are different photos.
    """
    settings = stored_profile(record).data
    made = record.data_set
    folders = [*([] if made is None else [made]), *([settings.name] if Path(settings.name).name == made else [])]
    name = data or next((found for found in folders if found in DATA_SETS or Path(found).is_dir()), None)
    if name is None:
        raise UserError(
            f"the photos of study {record.name!r} (data set {made!r}) are not here; say where they are: --data FOLDER"
        )
    people = open_data_set(
        name,
        names=list(record.data_digests),
        timestamps=max(record.timestamps.values(), default=1),
        train=settings.train,
        test=settings.test,
        data_seed=settings.data_seed,
        cache=study.parent / "data",
        image_size=settings.image_size,
    )
    changed = [one.name for one in people.identities if identity_digest(one) != record.data_digests[one.name]]
    if changed:
        raise UserError(
            f"the photos of {', '.join(changed)} in {name!r} are not those of study {record.name!r} (the "
            "digests of photos or their conditions differ); give the folder that the study was made from: --data FOLDER"
        )
    return people
