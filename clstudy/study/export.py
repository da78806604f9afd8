"""Writes a trial's final generator to a file in clstudy's format, for use outside the study.

A stage keeps only the weights that personalising changes. The file has the whole network: these weights, and all
others from the pretrained network. It reads like any converted checkpoint (``inspect``, ``--weights generator=FILE``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from torch import Tensor

from clstudy.assets import manifest
from clstudy.assets.model_files import find_files, generator_digest
from clstudy.errors import UserError, nearest
from clstudy.generators import load_generators
from clstudy.generators.base import GENERATORS
from clstudy.generators.checkpoints.checkpoint import Checkpoint
from clstudy.generators.checkpoints.reading import read_checkpoint
from clstudy.generators.checkpoints.safetensors_files import write_safetensors
from clstudy.generators.checkpoints.sizes import infer_settings
from clstudy.generators.low_rank import merged_state
from clstudy.generators.synthesis_copies import SynthesisCopies
from clstudy.metrics.lpips import LPIPS
from clstudy.records.results import result_keys, result_path
from clstudy.records.study_record import read_complete_record
from clstudy.settings.profiles import ComputeSettings, Profile
from clstudy.settings.trial_spec import TrialSpec
from clstudy.settings.version import __version__
from clstudy.storage.content_addressed_store import WEIGHTS, StudyStore
from clstudy.storage.places import Place, open_place, require_writable
from clstudy.study.stored_study import stored_profile, stored_trials
from clstudy.tracking.run_contents import run_names


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """The pretrained network that a study's trials began with.

    ``said`` describes its file and ``sha256`` is the file's; ``notes`` are copied into every file made from it.
    """

    generator: SynthesisCopies
    said: str
    sha256: str
    notes: tuple[str, ...]


def choose_trial(trials: Sequence[TrialSpec], wanted: str) -> TrialSpec:
    """The one trial that matches an id, its run's name in MLflow, the beginning of either, or a pattern.

    Raises:
        UserError: no trial matches, or several do.
    """
    runs = run_names(trials)
    called = {spec.trial_id: (spec.trial_id, runs[spec.trial_id]) for spec in trials}
    exact = [spec for spec in trials if wanted in called[spec.trial_id]]
    if exact:
        return exact[0]
    found = [
        spec
        for spec in trials
        if any(name.startswith(wanted) or fnmatchcase(name, wanted) for name in called[spec.trial_id])
    ]
    if len(found) == 1:
        return found[0]
    if not found:
        known = [name for names in called.values() for name in names]
        raise UserError(f"no trial {wanted!r} in this study.{nearest(wanted, known)} study.yaml lists them all")
    shown = ", ".join(spec.trial_id for spec in found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")
    raise UserError(f"{wanted!r} matches {len(found)} trials: {shown}; name one")


def final_weights(study: Place, spec: TrialSpec) -> dict[str, Tensor]:
    """The tuned weights of a trial's last stage, by name.

    Raises:
        UserError: the trial is not finished, or its weights are not stored any more.
    """
    keys = result_keys(result_path(study, spec.trial_id))
    if not keys:
        raise UserError(
            f"trial {spec.trial_id} is not finished (it has no readable rows in {study}/results); run the study to its "
            "end with the command that began it"
        )
    key = keys[-1]
    store = StudyStore(study)
    content = store.weights.file(key, WEIGHTS) or store.stages.file(key, WEIGHTS)  # with the rows: earlier versions
    if content is None:
        raise UserError(
            f"the final weights of trial {spec.trial_id} are not in {study} (a copy without weights/, or damaged); use "
            f"the study's own folder, or delete {result_path(study, spec.trial_id)} and run the study again"
        )
    return load_tensors(content)


def read_pretrained(profile: Profile, digest: str, weights: Sequence[str]) -> Pretrained:
    """A study's pretrained generator, checked against the recorded digest.

    Args:
        profile: the study's.
        digest: the generator's, as the study recorded it.
        weights: the ``--weights`` options.

    Raises:
        UserError: it is not here, or is a different one.
    """
    found = find_files(profile, weights)
    here = generator_digest(profile, found)
    if here != digest:
        raise UserError(
            f"the generator here is not the one the study began with (digest {here[:12]}…, expected {digest[:12]}…): "
            "name its files with --weights generator=FILE, and encoder=FILE if it had an encoder"
        )
    load_generators()
    kind = GENERATORS[profile.generator]
    files = {role: path for role, path in found.paths.items() if role == "generator"}
    plain = replace(profile, compute=ComputeSettings())  # how it was computed says nothing about the weights
    generator = kind.build(kind.read(files), plain, torch.device("cpu"), LPIPS())
    if not isinstance(generator, SynthesisCopies):
        raise UserError(f"generators of kind {profile.generator!r} cannot be exported; only StyleGAN2 can")
    if profile.weights is not None:
        packaged = manifest()[profile.weights]
        licence = (f"licence of {profile.weights}: {packaged['licence']}",)
        return Pretrained(generator=generator, said=profile.weights, sha256=packaged["sha256"], notes=licence)
    checkpoint = read_checkpoint(found.paths["generator"])
    return Pretrained(
        generator=generator, said=checkpoint.format, sha256=checkpoint.sha256, notes=(*checkpoint.notes, _NO_LICENCE)
    )


_NO_LICENCE = "the licence of the pretrained checkpoint holds for this file too"


def merged(pretrained: Pretrained, weights: Mapping[str, Tensor], notes: Sequence[str]) -> Checkpoint:
    """The whole network with these tuned weights, named as in StyleGAN2."""
    generator = pretrained.generator
    synthesis = merged_state(generator.fresh(weights))
    state = generator.network.state_dict() | {f"synthesis.{name}": value for name, value in synthesis.items()}
    tensors = {name: value.detach().cpu().float().numpy() for name, value in state.items()}
    return Checkpoint(
        kind="stylegan2",
        format=f"a generator personalised by clstudy, which began as {pretrained.said}",
        settings=infer_settings(tensors, conv_clamp=generator.settings.conv_clamp),
        tensors=tensors,
        sha256=pretrained.sha256,
        notes=(*notes, *pretrained.notes),
    )


def trial_notes(study: str, spec: TrialSpec) -> tuple[str, ...]:
    """What the file says about the trial. No paths and no times, so that equal trials give equal files."""
    stored = {} if spec.buffer_size is None else {"K": spec.buffer_size}
    facts: dict[str, Any] = {
        "trial": spec.trial_id,
        "study": study,
        "strategy": spec.strategy,
        **stored,
        "learning rate": f"{spec.learning_rate:g}",
        "seed": spec.seed,
        "clstudy": __version__,
    }
    return tuple(f"{name}: {value}" for name, value in facts.items())


def export(study: str, wanted: str, out: Path, *, weights: Sequence[str] = (), force: bool = False) -> str:
    """Write a trial's final generator and return the sentence that says what was written.

    Args:
        study: folder or URI.
        wanted: the trial (``choose_trial``).
        out: file to write; its name must end in .safetensors.
        weights: the ``--weights`` options, for a study whose generator is not packaged.
        force: replace an existing file.

    Raises:
        UserError: no such study or trial, it is unfinished, its generator is not here, or ``out`` cannot be used.
    """
    if out.exists() and not force:
        raise UserError(f"{out} exists already; choose another name, or replace it with --force")
    require_writable(out.parent, "the folder", "choose another place for the file")
    place = open_place(study)
    record = read_complete_record(place)
    spec = choose_trial(stored_trials(record), wanted)
    tuned = final_weights(place, spec)
    pretrained = read_pretrained(stored_profile(record), record.generator, weights)
    write_safetensors(merged(pretrained, tuned, trial_notes(record.name, spec)), out)
    written = read_checkpoint(out)
    return (
        f"{out}: {written.settings.img_resolution} px generator of trial {spec.trial_id}, {len(written.tensors)} "
        f"tensors, {out.stat().st_size / 1e6:.1f} MB, sha256 {written.sha256}"
    )
