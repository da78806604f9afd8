"""Profiles: complete, typed descriptions of a trial.

A profile is a function that returns a :class:`Profile`; add one as a function with a ``register`` line, or give
``module:Name`` wherever a profile's name is expected. :mod:`clstudy.settings.named_profiles` looks profiles up by name.
Their sections are in :mod:`clstudy.settings.profile_sections`, and can be imported from here, too.
Nothing here imports torch or Ray.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import cast

from clstudy.registry import Registry
from clstudy.settings.ageing import AgeingProfile, AgeingSettings
from clstudy.settings.class_gan import ClassGANProfile, ClassGANSettings
from clstudy.settings.kernels import PLAIN
from clstudy.settings.profile_sections import (
    BEFORE,
    FIXED,
    LATENT_SPACE_WORDS,
    PERSONALISE,
    AnchorSettings,
    ComputeSettings,
    DataSettings,
    EvaluationSettings,
    InversionSettings,
    LowRankSettings,
    PivotalSettings,
    Profile,
    Resources,
    TrainerSettings,
    ViewSettings,
    key_document,
    settings_by_name,
    settings_left_out,
    written_name,
)

__all__ = [
    "AnchorSettings",
    "BEFORE",
    "ComputeSettings",
    "DataSettings",
    "EvaluationSettings",
    "FIXED",
    "InversionSettings",
    "LATENT_SPACE_WORDS",
    "LowRankSettings",
    "PERSONALISE",
    "PROFILES",
    "PivotalSettings",
    "Profile",
    "Resources",
    "TrainerSettings",
    "ViewSettings",
    "class_gan_small",
    "embedded",
    "embedded_3d",
    "embedded_ageing",
    "embedded_lora",
    "few_photos",
    "key_document",
    "mergan",
    "my3dgen",
    "mystyle",
    "mytimemachine",
    "settings_by_name",
    "settings_left_out",
    "smoke",
    "tuning",
    "written_name",
]


def _profile_function(found: object) -> Callable[[], Profile]:
    """For the registry: accept a function of the user's own, without calling it.

    Only functions written in Python are accepted: a search space from elsewhere must not be able to call anything.
    """
    if not inspect.isfunction(found):
        raise ValueError("is not a function; expected one without arguments that returns a clstudy.Profile")
    needed = [one.name for one in inspect.signature(found).parameters.values() if _is_needed(one)]
    if needed:
        raise ValueError(f"has the arguments {', '.join(needed)}; expected a function without arguments")
    return cast("Callable[[], Profile]", found)


def _is_needed(parameter: inspect.Parameter) -> bool:
    loose = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return parameter.default is inspect.Parameter.empty and parameter.kind not in loose


PROFILES: Registry[Callable[[], Profile]] = Registry("profile", foreign=_profile_function)


@PROFILES.register("embedded")
def embedded() -> Profile:
    """64 px faces, packaged StyleGAN2 and W encoder, CPU, no network: the default."""
    return Profile(
        name="embedded",
        description="packaged 64 px StyleGAN2 on people who do not exist; runs on a laptop without GPU or network",
        stage_seconds=6.2,
    )


@PROFILES.register("embedded_lora")
def embedded_lora() -> Profile:
    """The embedded profile with low-rank factors: how much few parameters can hold, and how much is forgotten.

    The learning rate is up to the study, as always; factors need a larger one than weights.
    """
    profile = embedded()
    return replace(
        profile,
        name="embedded_lora",
        description="the embedded profile, training low-rank factors (rank 4) beside frozen weights",
        low_rank=LowRankSettings(rank=4),
        stage_bytes=450_000,
    )


@PROFILES.register("tuning")
def tuning() -> Profile:
    """The embedded profile on other people: settings are chosen on them, never on the people who are reported."""
    profile = embedded()
    return replace(
        profile,
        name="tuning",
        description="the embedded profile on other people (data seed 1), to choose settings on",
        data=replace(profile.data, data_seed=1),
    )


@PROFILES.register("few_photos")
def few_photos() -> Profile:
    """The embedded profile for real people with a handful of photos per timestamp.

    Training is counted in epochs, so two photos would get a quarter of the steps that eight get. Photos unlike the
    pretraining's (grey, framed differently) start from poor latents, so inversion must go further.

    Training is long because it takes that long until eyes and mouths are right: from 150 to 400 epochs the LPIPS of
    three ORL people's reconstructions does not move (0.024, 0.024), while ID rises from 0.40 to 0.54, and LPIPS of eyes
    and mouth, which has its own metric here, falls from 0.168 to 0.149. W+ adds nothing to that (0.48, 0.150), and
    halves LPIPS of all, forgotten or not, so inversion stays in W (``benchmarks/few_photos.py``).
    """
    profile = embedded()
    return replace(
        profile,
        name="few_photos",
        description="the embedded profile with more steps, for a handful of real photos per timestamp",
        trainer=TrainerSettings(epochs=400),
        inversion=InversionSettings(steps=60, prior_weight=0.1),
        evaluation=EvaluationSettings(metrics=("lpips", "id", "psnr", "lpips_eyes_mouth")),
        stage_seconds=16.0,
    )


@PROFILES.register("smoke")
def smoke() -> Profile:
    """The embedded profile cut down to seconds: for tests and a first try, not for conclusions."""
    return Profile(
        name="smoke",
        description="the embedded profile with 3 timestamps and a few steps; seconds, not for conclusions",
        data=DataSettings(timestamps=3, train=4, test=2),
        trainer=TrainerSettings(epochs=4),
        inversion=InversionSettings(steps=6),
        evaluation=EvaluationSettings(synthesis_images=2),
        stage_seconds=2.5,
    )


@PROFILES.register("mystyle")
def mystyle() -> Profile:
    """The paper's 2D study: StyleGAN2 on FFHQ, all synthesis weights tuned (MyStyle, arXiv 2203.17272).

    Values of the reference scripts, which invert test photos in W+; the learning rate (theirs: 3e-4) is the search
    space's. ``anchors`` are our own addition: the scripts always use an encoder.
    """
    return Profile(
        name="mystyle",
        description="the paper's 2D study on a StyleGAN2 checkpoint and your own aligned photos; wants a GPU",
        generator="stylegan2",
        weights=None,
        required_files=("generator", "arcface"),
        optional_files=("encoder", "base", "dists", "inception"),
        data=DataSettings(name="photos", timestamps=10, train=20, test=10, image_size=1024, alignment="ffhq"),
        trainer=TrainerSettings(epochs=1000, short_batch_replay="as_new"),
        inversion=InversionSettings(
            steps=800, learning_rate=5e-3, prior_weight=0.0, batch_size=5, final_lr_fraction=1.0, latent_space="w_plus"
        ),
        evaluation=EvaluationSettings(
            metrics=("lpips", "id", "psnr", "dists", "fid", "kid"),
            synthesis_images=20,
            synthesis_weights="normalised",
        ),
        compute=ComputeSettings(kernels=PLAIN),  # what fused ones gain on a GPU, none has measured yet
        resources=Resources(cpus=2.0, gpus=1.0, threads=2),
        stage_seconds=3600.0,
        estimate_from="a rough guess for one data-centre GPU, until a stage of this study is measured",
        stage_bytes=125_000_000,
        log_images=False,  # real people: a tracking server may be anywhere
    )


@PROFILES.register("my3dgen")
def my3dgen() -> Profile:
    """The paper's 3D study: EG3D on FFHQ, low-rank factors of rank 1 tuned (My3DGen, arXiv 2307.05468)."""
    return Profile(
        name="my3dgen",
        description="the paper's 3D study on an EG3D checkpoint and your own photos with cameras; wants a GPU",
        workload="personalise_3d",
        generator="eg3d",
        weights=None,
        required_files=("generator", "arcface"),
        optional_files=("dists", "inception", "directions"),
        data=DataSettings(name="photos", timestamps=10, train=20, test=10, image_size=512, alignment="eg3d"),
        trainer=TrainerSettings(epochs=1000),
        inversion=InversionSettings(
            steps=1000, learning_rate=5e-3, prior_weight=0.0, batch_size=5, final_lr_fraction=1.0
        ),
        anchors=AnchorSettings(steps=1000),
        evaluation=EvaluationSettings(
            metrics=("lpips", "id", "psnr", "dists", "fid", "kid"), synthesis_images=20, synthesis_weights="normalised"
        ),
        low_rank=LowRankSettings(rank=1),
        views=ViewSettings(mirrored=True),
        pivotal=PivotalSettings(steps=350),
        compute=ComputeSettings(kernels=PLAIN),
        resources=Resources(cpus=2.0, gpus=1.0, threads=2),
        stage_seconds=7200.0,
        estimate_from="a rough guess for one data-centre GPU, until a stage of this study is measured",
        stage_bytes=1_000_000,
        log_images=False,  # real people: a tracking server may be anywhere
    )


@PROFILES.register("embedded_3d")
def embedded_3d() -> Profile:
    """A 64 px EG3D on virtual people seen by several cameras, on the CPU: My3DGen's question on a laptop."""
    return Profile(
        name="embedded_3d",
        description="packaged 64 px EG3D on virtual people with known cameras and depth; runs on a laptop without GPU",
        workload="personalise_3d",
        generator="embedded_3d",
        weights="embedded_3d.safetensors",
        data=DataSettings(name="virtual_views", timestamps=5, train=8, test=6),
        stage_seconds=40.0,
        stage_bytes=8_000_000,
    )


@PROFILES.register("embedded_ageing")
def embedded_ageing() -> Profile:
    """Virtual people at ages from 30 to 66, aged by an adapter of latents beside the packaged age prior, on the CPU."""
    return AgeingProfile(
        name="embedded_ageing",
        description="a personal age adapter on the packaged 64 px generator and age prior; virtual people, CPU",
        trainer=TrainerSettings(epochs=30),
        ageing=AgeingSettings(neck=16, shared=64, hidden=64),
        stage_seconds=32.0,
        stage_bytes=3_400_000,
    )


@PROFILES.register("mytimemachine")
def mytimemachine() -> Profile:
    """MyTimeMachine (2411.14521) on real checkpoints: StyleGAN2 on FFHQ, SAM's encoder as prior, own photos with ages.

    Sizes of the adapter and the three losses are the paper's; epochs, batches and weights of the losses are ours.
    """
    return AgeingProfile(
        name="mytimemachine",
        description="MyTimeMachine on a StyleGAN2 checkpoint, SAM's prior and your own photos with ages; wants a GPU",
        generator="stylegan2",
        weights=None,
        required_files=("generator", "age_prior", "age_estimator"),
        optional_files=("encoder", "base"),
        data=DataSettings(name="photos", timestamps=5, train=10, test=5, image_size=1024, alignment="ffhq"),
        trainer=TrainerSettings(epochs=100),
        compute=ComputeSettings(kernels=PLAIN),
        resources=Resources(cpus=2.0, gpus=1.0, threads=2),
        stage_seconds=1800.0,
        estimate_from="a rough guess for one data-centre GPU, until a stage of this study is measured",
        stage_bytes=46_000_000,
        log_images=False,  # real people: a tracking server may be anywhere
    )


@PROFILES.register("class_gan_small")
def class_gan_small() -> Profile:
    """Digits, one category after the other, by a small class-conditional GAN on the CPU."""
    return ClassGANProfile(
        name="class_gan_small",
        description="a class-conditional GAN learns handwritten digits one by one (32 px, CPU)",
        data=DataSettings(name="digits", timestamps=4, train=300, test=60, image_size=32),
        class_gan=ClassGANSettings(
            width=8, adversarial="non_saturating", critic_steps=1, steps=400, batch_size=32, replay_batch_size=32
        ),
        stage_seconds=40.0,
        stage_bytes=1_500_000,
    )


@PROFILES.register("mergan")
def mergan() -> Profile:
    """Memory Replay GANs on digits as published (Wu et al., arXiv 1809.02058): WGAN-GP, 4,001 steps a category."""
    return ClassGANProfile(
        name="mergan",
        description="Memory Replay GANs' settings for digits (32 px, 4,001 steps a category); wants a GPU",
        resources=Resources(cpus=2.0, gpus=1.0, threads=2),
        stage_seconds=900.0,
        estimate_from="a rough guess for one data-centre GPU, until a stage of this study is measured",
        stage_bytes=16_000_000,
    )
