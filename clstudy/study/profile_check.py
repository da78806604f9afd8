"""Checks a profile: its parts exist, it can be stored and read back, its keys are stable (no Ray)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from clstudy.assets import manifest
from clstudy.assets.model_files import ROLES, wanted_roles
from clstudy.errors import UserError, nearest
from clstudy.registry import Finding
from clstudy.settings.named_profiles import named_profile
from clstudy.settings.profile_documents import profile_from_document
from clstudy.settings.profiles import Profile
from clstudy.storage.content_addressed_store import digest_of
from clstudy.trial.requests import Basis
from clstudy.workloads import workload_of


def check_profile(name: str) -> list[Finding]:
    """Check what must hold for every profile.

    Args:
        name: as in a search space.
    """
    try:
        profile, again = named_profile(name), named_profile(name)
    except UserError as error:
        return [Finding("settings", str(error))]  # nothing else can be checked
    return [Finding("settings"), *(Finding(check, _problem(look, profile, again)) for check, look in _CHECKERS.items())]


def require_parts(profile: Profile) -> None:
    """Refuse a profile whose generator, workload, metrics or weights do not exist. Imports torch.

    Raises:
        UserError: one of them does not.
    """
    for look in (_parts, _weights):
        look(profile, profile)


def _problem(look: Callable[[Profile, Profile], None], profile: Profile, again: Profile) -> str:
    try:
        look(profile, again)
    except UserError as error:
        return str(error)
    return ""


def _parts(profile: Profile, again: Profile) -> None:
    from clstudy.generators import load_generators
    from clstudy.generators.base import GENERATORS
    from clstudy.metrics import load_metrics
    from clstudy.metrics.base import METRICS

    load_generators()
    load_metrics()
    workload_of(profile)
    _ = GENERATORS[profile.generator], [METRICS[name] for name in profile.evaluation.metrics]


def _weights(profile: Profile, again: Profile) -> None:
    known = [name for name in manifest() if name.endswith(".safetensors")]
    if profile.weights is not None and profile.weights not in known:
        raise UserError(
            f"weights {profile.weights!r} are not in the package.{nearest(profile.weights, known)} Use None and name "
            "the role of a file of your own in required_files"
        )
    required, optional = wanted_roles(profile)
    for role in (*required, *optional):
        _ = ROLES[role]
    from clstudy.generators.base import GENERATORS

    if GENERATORS[profile.generator].pretrained and profile.weights is None and "generator" not in required:
        raise UserError("weights is None, and required_files does not name 'generator', the role of the file to read")


def _stored(profile: Profile, again: Profile) -> None:
    try:
        document = json.loads(json.dumps(profile.to_dict()))
    except (TypeError, ValueError) as error:
        raise UserError(f"study.yaml cannot hold it: {error}") from error
    read = profile_from_document(document)
    if read != profile:
        differing = [name for name, value in vars(profile).items() if getattr(read, name, None) != value]
        raise UserError(
            f"it is read back with another {', '.join(differing) or 'class'}; settings are numbers, words, true or "
            "false, and tuples of them"
        )


def _repeated(profile: Profile, again: Profile) -> None:
    if again != profile:
        raise UserError("two calls return different profiles, so that no stage would be found again")
    if _keyed(again) != _keyed(profile):
        raise UserError("two calls give different keys, so that no stage would be found again")


def _keyed(profile: Profile) -> str:
    """Digest of everything in a profile that enters a key."""
    basis = Basis(profile, "generator")
    return digest_of(
        {
            "workload": basis.workload(),
            "sections": workload_of(profile).key_sections(profile),
            "adapted": basis.adapted(),
            "measuring": basis.measuring(),
            "fingerprint": basis.fingerprint(),
        }
    )


_CHECKERS: Mapping[str, Callable[[Profile, Profile], None]] = {
    "parts": _parts,
    "weights": _weights,
    "stored": _stored,
    "repeated": _repeated,
}

CHECKS: Mapping[str, str] = {
    "settings": "returns a profile, and every setting is of its type and range",
    "parts": "its generator, workload and metrics exist",
    "weights": "its weights are in the package, or come from files of known roles",
    "stored": "study.yaml gives the same profile back",
    "repeated": "a second call gives the same profile and the same keys",
}
"""Name of a check -> the promise that it tests."""
