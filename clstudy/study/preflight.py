"""Checks that weights, photos and a GPU are there before a study starts, and reports everything missing at once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from clstudy.assets.model_files import ROLES, FoundFiles, find_files, generator_digest, metric_digests, missing_lines
from clstudy.errors import UserError
from clstudy.identities.catalogue import DATA_SETS
from clstudy.identities.check import recorded_alignment
from clstudy.metrics.backends import import_backends
from clstudy.settings.metric_facts import own_metrics, packaged_metrics, row_names
from clstudy.settings.metric_files import needed_files, required_by_settings
from clstudy.settings.profiles import EvaluationSettings, Profile, Resources


@dataclass(frozen=True, kw_only=True)
class Equipment:
    """A profile as it can run here, with the metrics that have their weights, and the files by role."""

    profile: Profile
    files: Mapping[str, Path]
    generator_digest: str
    metric_files: Mapping[str, str]
    left_out: Mapping[str, str]
    """Metric -> the reason why it is left out."""


def on_device(profile: Profile, device: str | None) -> Profile:
    """The profile with device "cpu" or "cuda" instead of its own; None keeps its own."""
    share = profile.resources
    if device is None or (device == "cuda") == bool(share.gpus):
        return profile
    gpus = 1.0 if device == "cuda" else 0.0
    return replace(profile, resources=Resources(cpus=share.cpus, gpus=gpus, threads=share.threads))


def missing_photos(data: str) -> list[str]:
    """A line if there is no such data set or folder."""
    if data in DATA_SETS or Path(data).is_dir():
        return []
    return [
        f"photos: no folder {data!r} with <identity>/<timestamp>/{{train,test}}/*.png. "
        "`python -m clstudy.identities prepare --help` makes one from videos or dated photos; or name yours: "
        "--data FOLDER"
    ]


def missing_gpu(profile: Profile, address: str | None) -> list[str]:
    """A line if trials need a GPU and neither this machine nor a cluster has one."""
    if not profile.resources.gpus or address is not None:
        return []
    import torch

    if torch.cuda.is_available():
        return []
    return [
        f"GPU: the profile gives every trial {profile.resources.gpus:g} GPU and this machine has none that torch can "
        "use. Run it on a cluster (--address auto), or, for a try on small networks, on the CPU: --device cpu"
    ]


def missing_compiler(profile: Profile, address: str | None) -> list[str]:
    """A line if trials compile and this machine has no compiler; a cluster's nodes are not checked."""
    if not profile.compute.compile or address is not None:
        return []
    variable, usual = ("CC", "gcc") if profile.resources.gpus else ("CXX", "g++")
    compiler = os.environ.get(variable, usual)
    if shutil.which(compiler):
        return []
    return [
        f"compiler: compute.compile needs {compiler!r}, which is not on this machine; install it (Debian: "
        f"apt install g++), name another in {variable}, or leave --compile out"
    ]


def require_alignment(root: Path, profile: Profile) -> None:
    """Refuse photos that were not aligned as the profile's generator and ID crop expect.

    ``prepared.json`` (written by ``python -m clstudy.identities prepare``) says how; photos without it are accepted.

    Raises:
        UserError: the alignments differ.
    """
    aligned, wanted = recorded_alignment(root), profile.data.alignment
    if aligned not in (None, wanted):
        raise UserError(
            f"the photos of {root.name!r} are aligned as {aligned!r}, profile {profile.name!r} expects {wanted!r}; "
            f"make them again with `python -m clstudy.identities prepare … --alignment {wanted}`"
        )


def left_out_metrics(profile: Profile, found: FoundFiles, without: Sequence[str]) -> dict[str, str]:
    """Metrics that will not be computed, each with its reason.

    Raises:
        UserError: ``without`` names a metric that the profile does not have, or leaves no metric.
    """
    metrics = profile.evaluation.metrics
    named = row_names(metrics, own_metrics(metrics))
    unknown = [name for name in without if name not in named and name not in named.values()]
    if unknown:
        raise UserError(f"--without {unknown[0]}: profile {profile.name!r} has the metrics {', '.join(metrics)}")
    left = [name for name, in_rows in named.items() if name in without or in_rows in without]
    reasons = dict.fromkeys(left, "as --without says")
    for name in metrics:
        for role in needed_files(name):
            if role in found.missing_optional:
                reasons.setdefault(name, f"no {ROLES[role].what}; {ROLES[role].remedy}")
    if set(metrics) <= reasons.keys():
        raise UserError("no metric is left to compute; leave fewer out")
    return reasons


def unused_roles(profile: Profile, kept: Sequence[str]) -> set[str]:
    """Roles of files that nothing reads if only the metrics ``kept`` are computed."""
    asked = {"id": ("arcface",), **required_by_settings(profile.evaluation)}
    for metric in dict.fromkeys([*packaged_metrics(), *profile.evaluation.metrics]):
        # files that a profile names were always part of its studies' keys
        asked.setdefault(metric, tuple(role for role in needed_files(metric) if role not in profile.optional_files))
    read = {role for metric, roles in asked.items() if metric in kept for role in roles}
    return {role for metric, roles in asked.items() if metric not in kept for role in roles} - read


def missing_packages(evaluation: EvaluationSettings, address: str | None) -> list[str]:
    """A line for every library that the metrics need and that cannot be imported here.

    This does not check the nodes of a cluster; there the trials report it.
    """
    if address is not None:
        return []
    lines = []
    for metric in evaluation.metrics:
        try:
            import_backends(metric, evaluation)
        except UserError as error:
            lines.append(f"{metric}: {error}")
    return lines


def equip(
    profile: Profile,
    *,
    weights: Sequence[str] = (),
    device: str | None = None,
    without: Sequence[str] = (),
    data: str | None = None,
    address: str | None = None,
) -> Equipment:
    """Find everything a profile needs from outside the package.

    Args:
        profile: as registered.
        weights: the ``--weights`` options, FOLDER or ROLE=FILE.
        device: "cpu" or "cuda", instead of the profile's device.
        without: metrics to leave out.
        data: data set or folder, instead of the profile's.
        address: of a Ray cluster, which may have GPUs that this machine lacks.

    Raises:
        UserError: something is missing; the message lists all of it, and where or how to get it.
    """
    profile = on_device(profile, device)
    found = find_files(profile, weights)
    reasons = left_out_metrics(profile, found, without)
    kept = tuple(name for name in profile.evaluation.metrics if name not in reasons)
    unused = unused_roles(profile, kept)
    missing = replace(found, missing_required=tuple(role for role in found.missing_required if role not in unused))
    problems = [
        *missing_lines(missing, weights),
        *missing_photos(data or profile.data.name),
        *missing_gpu(profile, address),
        *missing_compiler(profile, address),
        *missing_packages(replace(profile.evaluation, metrics=kept), address),
    ]
    if problems:
        listed = "\n".join(f"  - {problem}" for problem in problems)
        raise UserError(f"profile {profile.name!r} cannot start, {len(problems)} missing:\n{listed}")
    used = {role: path for role, path in found.paths.items() if role not in unused}
    return Equipment(
        profile=replace(profile, evaluation=replace(profile.evaluation, metrics=kept)) if reasons else profile,
        files=used,
        generator_digest=generator_digest(profile, found),
        metric_files={role: digest for role, digest in metric_digests(found).items() if role in used},
        left_out=reasons,
    )
