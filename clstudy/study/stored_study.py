"""A study read back from its folder alone: settings, trials, stage keys, photos (no torch, no Ray)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

from clstudy.errors import UserError, nearest
from clstudy.identities.catalogue import DATA_SETS, open_data_set
from clstudy.identities.dataset import DataSet
from clstudy.records.results import result_keys, result_path
from clstudy.records.study_document import read_document
from clstudy.settings.profiles import Profile
from clstudy.settings.trial_spec import TrialSpec
from clstudy.trial.requests import Basis, identity_digest, version_digest

_REMEDY = "expected what `python -m clstudy.run` leaves behind, e.g. runs/hull_sizes"


def read_study_file(study: Path) -> dict[str, Any]:
    """The document of ``study.yaml``.

    Raises:
        UserError: there is none, or it is not one.
    """
    path = study / "study.yaml"
    document = read_document(study)
    wanted = {"name", "profile", "trials", "generator", "fingerprint", "data_digests", "timestamps"}
    missing = wanted - document.keys()
    if missing:
        raise UserError(f"{path} says nothing about {', '.join(sorted(missing))}; {_REMEDY}")
    return document


def stored_profile(document: Mapping[str, Any]) -> Profile:
    """The profile a study was made with, as it was then; settings that came later have their defaults.

    Raises:
        UserError: a setting that this version does not know.
    """
    profile: Profile = _build(Profile, document["profile"], "profile")
    return profile


def _build(kind: type[Any], values: Mapping[str, Any], where: str) -> Any:
    known = {entry.name: entry for entry in fields(kind)}
    unknown = [name for name in values if name not in known]
    if unknown:
        raise UserError(
            f"study.yaml has the setting {where}.{unknown[0]}, which this version of clstudy does not know."
            f"{nearest(unknown[0], known)} Use the version named there under versions"
        )
    return kind(**{name: _plain(known[name], value, where) for name, value in values.items()})


def _plain(entry: Field[Any], value: Any, where: str) -> Any:
    if entry.default_factory is not MISSING and isinstance(value, Mapping):
        return _build(entry.default_factory, value, f"{where}.{entry.name}")  # type: ignore[arg-type]
    return tuple(value) if isinstance(value, list) else value


def stored_trials(document: Mapping[str, Any]) -> tuple[TrialSpec, ...]:
    """The planned trials, in the plan's order."""
    names = ("identity", "strategy", "buffer_size", "learning_rate", "seed")
    return tuple(TrialSpec(**{name: entry[name] for name in names}) for entry in document["trials"])


def stored_version(document: Mapping[str, Any], spec: TrialSpec) -> str:
    """``clstudy.trial.requests.run_version`` of a trial from what ``study.yaml`` says; the photos need not be there.

    Raises:
        UserError: a strategy of the user's own that cannot be imported.
    """
    basis = Basis(stored_profile(document), document["generator"], document.get("metric_files", {}))
    photos = document["data_digests"][spec.identity]
    return version_digest(basis, spec, fingerprint=document["fingerprint"], photos=photos)


def stage_keys(study: Path, trial_id: str) -> list[str] | None:
    """Keys of a finished trial's stages, in order; None if the trial has no (readable, undamaged) result."""
    return list(result_keys(result_path(study, trial_id))) or None


def stored_photos(study: Path, document: Mapping[str, Any], data: str | None = None) -> DataSet:
    """The photos a study was made from, checked against its digests.

    Args:
        study: folder of the study; a packaged data set lies (or is made) beside it.
        document: of ``study.yaml``.
        data: data set or photo folder, where the study's own is elsewhere now.

    Raises:
        UserError: they are not there, or are other photos.
    """
    settings = stored_profile(document).data
    made = document["data_set"]
    folders = [made, *([settings.name] if Path(settings.name).name == made else [])]
    name = data or next((found for found in folders if found in DATA_SETS or Path(found).is_dir()), None)
    if name is None:
        raise UserError(
            f"the photos of study {document['name']!r} (data set {made!r}) are not here; "
            "say where they are: --data FOLDER"
        )
    people = open_data_set(
        name,
        names=list(document["data_digests"]),
        timestamps=max(document["timestamps"].values()),
        train=settings.train,
        test=settings.test,
        data_seed=settings.data_seed,
        cache=study.parent / "data",
        image_size=settings.image_size,
    )
    changed = [one.name for one in people.identities if identity_digest(one) != document["data_digests"][one.name]]
    if changed:
        raise UserError(
            f"the photos of {', '.join(changed)} in {name!r} are not those of study {document['name']!r} (the "
            "digests of photos or their conditions differ); give the folder that the study was made from: --data FOLDER"
        )
    return people
