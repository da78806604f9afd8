"""The sections of a profile: typed settings, how they are written, and what of them enters keys.

Nothing here imports torch or Ray.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import Field as SettingField
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from clstudy.errors import nearest
from clstudy.registry import Registry
from clstudy.settings.instruction_sets import INSTRUCTION_SETS, NATIVE
from clstudy.settings.kernels import FUSED, KERNELS, PLAIN
from clstudy.settings.precision import PRECISIONS

_LATER = {"later": True}
"""Marks a setting that was added when studies existed already; see ``key_document``."""
_LATEST = {"later": True, "after searches": True}
"""Marks a setting that was added when searches for learning rates existed too; see ``search_document``."""

FIXED = "fixed"
"""In a field's metadata: marks a setting that a search space cannot change; its value is the reason, for messages."""

BEFORE = "before"
"""In a field's metadata: its value in documents from before there was the setting, where that is not the default."""


def _fixed(why: str) -> dict[str, str]:
    return {FIXED: why}


def _before(value: Any) -> dict[str, Any]:
    """Marks a setting that was added later and is always written; what is computed without it is computed so."""
    return {BEFORE: value}


def _name_in(registry: Registry[Any], what: str) -> Callable[[str], str]:
    """A check that a name is registered, for settings that are names."""

    def known(name: str) -> str:
        if name not in registry:
            raise ValueError(f"unknown {what}.{nearest(name, registry)} Known: {', '.join(registry)}")
        return name

    return known


def _written_as(name: str) -> dict[str, str]:
    """Marks a setting that has an older name in keys and ``study.yaml``; spaces may use that name, too."""
    return {"written as": name}


def written_name(entry: SettingField[Any]) -> str:
    """A setting's name in keys and in ``study.yaml``."""
    return str(entry.metadata.get("written as", entry.name))


def settings_by_name(kind: type[Any] | Any) -> dict[str, SettingField[Any]]:
    """The settings of a section by all their names: present names first, then written names that differ."""
    settable = [entry for entry in fields(kind) if entry.init]
    return {entry.name: entry for entry in settable} | {written_name(entry): entry for entry in settable}


# values are checked where a profile or a setting comes from outside (``clstudy.settings.overrides``)
_Count = Annotated[int, Field(ge=1)]
_Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Decay = Annotated[float, Field(ge=0, lt=1)]

TURNTABLE = "turntable"
"""Name of the picture of a stage that shows a 3D generator from several sides."""

CATEGORY_SAMPLES = "samples"
"""Name of the picture of a stage with some generated images of every category so far, one row for each."""

EDITED_FACES = "edited"
"""Name of the picture of a stage that shows each timestamp's first reconstruction, and below it the edited one."""

AGE_STRIP = "ages"
"""Name of the picture of a stage with a test photo at ``STRIP_AGES``: true, by the age prior, and by the stage."""

STRIP_AGES = (20, 30, 40, 50, 60, 70, 80)
"""Years at which a person is shown."""

TURNTABLE_YAWS = (-30, -15, 0, 15, 30)
"""Degrees from which a 3D generator is shown, one latent in all of them."""

PERSONALISE = "personalise"
"""The default workload, which was the only one for earlier studies."""

LATENT_SPACE_WORDS = {"w": "W (one latent for all layers)", "w_plus": "W+ (one latent for each layer)"}
"""``InversionSettings.latent_space`` -> its name in plans and reports."""


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """The photos: data set (or folder), people, timestamps, photos per timestamp, side in pixels.

    ``alignment`` says how faces are aligned in the photos ("embedded", "ffhq" or "eg3d"); it determines the ID metric's
    crop.
    """

    name: str = field(default="synthetic", metadata=_fixed("`data:` of the space and --data say which photos"))
    timestamps: _Count = 5
    train: _Count = 8
    test: _Count = 4
    data_seed: Annotated[int, Field(ge=0)] = 0
    image_size: _Count = field(default=64, metadata=_fixed("photos have the size that the generator makes"))
    alignment: Literal["embedded", "ffhq", "eg3d"] = field(
        default="embedded", metadata=_fixed("photos are aligned as those that the generator was trained on")
    )


@dataclass(frozen=True, kw_only=True)
class TrainerSettings:
    """Personalising (protocol, step 2): loss per photo = LPIPS + ``mse_weight`` * MSE, Adam, fresh per timestamp.

    ``epochs``: shuffled passes over the new photos; ``batch_size``/``replay_batch_size``: new and replayed photos
    per step. ``short_batch_replay``: what is replayed with the last batch of an epoch if that is short: "full", still a
    whole replay batch, or "as_new", no more photos than there are new ones (the reference scripts).
    """

    epochs: Annotated[int, Field(ge=1)] = field(default=24, metadata=_written_as("passes"))
    batch_size: Annotated[int, Field(ge=1)] = 2
    replay_batch_size: Annotated[int, Field(ge=1)] = 2
    mse_weight: _Weight = 1.0
    betas: tuple[_Decay, _Decay] = (0.9, 0.999)
    short_batch_replay: Literal["full", "as_new"] = field(default="full", metadata=_LATEST)


@dataclass(frozen=True, kw_only=True)
class InversionSettings:
    """Test-time optimisation of a latent under the current generator; Adam.

    ``latent_space``: "w", one latent for all layers, or "w_plus", one for each layer (Abdal et al., 1904.03189), all of
    which start from the photo's w. W+ fits any face far better, including forgotten ones, so levels and differences
    shrink: in the embedded study to about 40% in LPIPS (docs/procedure.md). The scripts behind the published tables use
    it (protocol, "Reconstruction"). ``final_lr_fraction`` is the fraction of the learning rate at the last step of
    cosine annealing; 1 keeps it constant, as the paper does. ``prior_weight`` times the mean square distance of the
    latent to its start is added to the loss. In a small network LPIPS alone can be lowered without end while MSE stays
    the same; the prior gives the loss a minimum that can be reached. 0 is the paper's plain LPIPS + L2.
    ``batch_size``: photos in one pass; with ``test_sets_together``, of as many test sets as fit. Photos do not
    influence each other, so more at a time is faster and changes last digits at most. ``stop_below``: a photo's latent
    is found as soon as ``stop_after`` more steps lowered its smallest loss by less than this share; 0 takes all steps.
    """

    steps: Annotated[int, Field(ge=0)] = 20
    learning_rate: _Rate = 0.1
    mse_weight: _Weight = 1.0
    prior_weight: _Weight = 1.0
    batch_size: Annotated[int, Field(ge=1)] = 24
    final_lr_fraction: Annotated[float, Field(ge=0, le=1)] = field(
        default=0.05, metadata={**_LATER, **_written_as("final_rate")}
    )
    latent_space: Literal["w", "w_plus"] = field(default="w", metadata=_LATEST)
    test_sets_together: bool = field(default=True, metadata=_before(False))
    stop_below: Annotated[float, Field(ge=0, lt=1)] = field(default=0.0, metadata=_LATEST)
    stop_after: Annotated[int, Field(ge=1)] = field(default=25, metadata=_LATEST)


@dataclass(frozen=True, kw_only=True)
class AnchorSettings:
    """Inversion of training photos without an encoder: w starts from the pretrained generator's mean latent.

    The learning rate is far above that of test-time inversion, which starts close to its optimum.
    """

    steps: Annotated[int, Field(ge=0)] = 800
    learning_rate: _Rate = 0.05
    mse_weight: _Weight = 1.0
    batch_size: Annotated[int, Field(ge=1)] = 4

    def as_inversion(self) -> InversionSettings:
        """The same settings as an inversion without prior."""
        return InversionSettings(prior_weight=0.0, **asdict(self))


@dataclass(frozen=True, kw_only=True)
class EvaluationSettings:
    """Metrics by name; images per timestamp and anchors per convex combination for the synthesis protocol.

    ``metrics``: registered names, and ``module:Name`` of the user's own.

    ``synthesis_weights``: how the weights of a combination are drawn: "uniform" on the simplex, or "normalised",
    uniform numbers divided by their sum, which stay nearer to the middle (the reference scripts).
    ``lpips_backend`` and ``id_backend``: names in ``clstudy.settings.metric_files.BACKENDS`` of the libraries that
    compute the metrics LPIPS and ID. ``lpips_network``: a name in ``clstudy.settings.metric_files.LPIPS_NETWORKS``.
    Training and inversion minimise the packaged LPIPS (AlexNet) whatever these say.
    """

    metrics: tuple[str, ...] = ("lpips", "id", "psnr")
    synthesis_images: Annotated[int, Field(ge=0)] = 6
    synthesis_anchors: Annotated[int, Field(ge=1)] = 3
    synthesis_weights: Literal["uniform", "normalised"] = field(default="uniform", metadata=_LATEST)
    lpips_backend: Literal["packaged", "lpips"] = field(default="packaged", metadata=_LATEST)
    lpips_network: Literal["alex", "vgg", "squeeze"] = field(default="alex", metadata=_LATEST)
    id_backend: Literal["onnxruntime", "insightface"] = field(default="onnxruntime", metadata=_LATEST)


@dataclass(frozen=True, kw_only=True)
class LowRankSettings:
    """Train low-rank factors added to frozen weights (Hu et al., 2106.09685) instead of the weights.

    ``rank`` of the factors; 0 trains the weights themselves. ``scale`` of their product.
    """

    rank: Annotated[int, Field(ge=0)] = 0
    scale: _Rate = 1.0


@dataclass(frozen=True, kw_only=True)
class ViewSettings:
    """Of 3D generators: from where generated people are looked at, and what is trained.

    ``synthesis_yaw`` and ``synthesis_pitch``: the combinations of the synthesis protocol are seen from angles up to
    these, in degrees, drawn uniformly. ``freeze_renderer``: the decoder and the super-resolution keep their pretrained
    weights. ``mirrored``: every photo is also trained on as its mirror image, with its mirrored camera and an anchor of
    its own. ``turned_yaw``: identity is also scored of reconstructions turned by so many degrees to both sides; 0: not.
    ``edit``: the semantic direction along which latents of test photos are moved, by ``edit_strength`` times the
    direction, to score and show edited faces; nothing for a generator without directions, or if it is empty. A name
    that a generator's directions do not have is refused.
    """

    synthesis_yaw: Annotated[float, Field(ge=0, le=90)] = 20.0
    synthesis_pitch: Annotated[float, Field(ge=0, le=90)] = 10.0
    freeze_renderer: bool = False
    mirrored: bool = False
    turned_yaw: Annotated[float, Field(ge=0, le=60)] = 20.0
    edit: Annotated[str, Field(pattern=r"^([a-z][a-z0-9_]*)?$")] = "smile"
    edit_strength: Annotated[float, Field(allow_inf_nan=False)] = 1.0


@dataclass(frozen=True, kw_only=True)
class PivotalSettings:
    """Pivotal tuning of a throw-away copy after a test photo's inversion (Roich et al., 2106.05744), in 3D profiles.

    ``steps``: at most so many; 0: none. ``enough``: it ends as soon as LPIPS to the photo is no larger.
    """

    steps: Annotated[int, Field(ge=0)] = 0
    learning_rate: _Rate = 3e-4
    enough: _Weight = 0.06


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Share of a machine per trial, and the torch threads it computes with (part of a stage's key)."""

    cpus: _Amount = 1.0
    gpus: _Amount = field(
        default=0.0, metadata=_fixed("it depends on the machine, so each run says it: --device, --gpu-share")
    )
    threads: _Count = 1


@dataclass(frozen=True, kw_only=True)
class ComputeSettings:
    """How the arithmetic is done (part of a stage's key, except ``activation_checkpointing``, which changes no bit).

    ``precision``: a name of ``clstudy.settings.precision.PRECISIONS``. ``compile``: torch.compile for the synthesis
    network. ``activation_checkpointing``: activations are recomputed in the backward pass instead of
    kept, to save memory. ``instruction_set``: a name of ``clstudy.settings.instruction_sets.INSTRUCTION_SETS``, for
    studies on processors of different kinds. ``kernels``: a name of ``clstudy.settings.kernels.KERNELS``.
    """

    precision: Annotated[str, AfterValidator(_name_in(PRECISIONS, "precision"))] = "float32"
    compile: bool = False
    activation_checkpointing: bool = field(default=False, metadata=_written_as("recompute"))
    instruction_set: Annotated[str, AfterValidator(_name_in(INSTRUCTION_SETS, "instruction set"))] = field(
        default=NATIVE, metadata=_LATEST
    )
    kernels: Annotated[str, AfterValidator(_name_in(KERNELS, "kernels"))] = field(
        default=FUSED, metadata=_before(PLAIN)
    )


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Everything about a trial that a search space does not vary.

    Its sections are the fields that are dataclasses. A subclass may add sections of its own: they are changed, checked,
    shown and stored like those here, and they enter the stages' keys.

    ``weights`` names the packaged file of the generator. None: it comes from files outside the package, by role
    (``clstudy.assets.model_files``); ``required_files`` must be there, and ``optional_files`` are used if they are.
    """

    name: str
    description: str
    workload: str = field(default=PERSONALISE, metadata=_LATER)
    """What a stage does: a name of ``clstudy.workloads``."""
    generator: str = "embedded"
    weights: str | None = "embedded_generator.safetensors"
    required_files: tuple[str, ...] = ()
    optional_files: tuple[str, ...] = ()
    data: DataSettings = field(default_factory=DataSettings)
    trainer: TrainerSettings = field(default_factory=TrainerSettings)
    inversion: InversionSettings = field(default_factory=InversionSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    anchors: AnchorSettings = field(default_factory=AnchorSettings)
    low_rank: LowRankSettings = field(default_factory=LowRankSettings, metadata=_LATER)
    views: ViewSettings = field(default_factory=ViewSettings, metadata=_LATER)
    pivotal: PivotalSettings = field(default_factory=PivotalSettings, metadata=_LATER)
    compute: ComputeSettings = field(default_factory=ComputeSettings)
    resources: Resources = field(default_factory=Resources)
    stage_seconds: _Amount
    """Core-seconds of an average stage on the README's machine; the estimate until a study has measured its own."""
    estimate_from: str = "the profile's figure"
    """Where ``stage_seconds`` comes from, in the plan's words."""
    stage_bytes: Annotated[int, Field(ge=0)] = 5_900_000
    """Disk per stage: the tunable weights in float32, a few rows and a small picture."""
    log_images: bool = True
    """Whether MLflow gets faces, buffers and the report; if off, people's pictures stay in the study's storage."""

    def to_dict(self) -> dict[str, Any]:
        """Plain nested dictionary, e.g. for ``study.yaml``; parts added later are left out if they have defaults.

        A subclass's dictionary has ``class``, from which ``profile_from_document`` restores it.
        """
        kind = type(self)
        return key_document(self) | ({} if kind is Profile else {"class": f"{kind.__module__}:{kind.__qualname__}"})


def key_document(settings: Any) -> dict[str, Any]:
    """Settings as they enter a key.

    A setting that was added later is left out while it has its default, so that earlier stages keep their keys.
    """
    unsaid = settings_left_out(settings, "later")
    return {
        written_name(entry): _document(getattr(settings, entry.name))
        for entry in fields(settings)
        if entry.name not in unsaid
    }


def _document(value: Any) -> Any:
    if is_dataclass(value):
        return {written_name(entry): _document(getattr(value, entry.name)) for entry in fields(value)}
    return deepcopy(value)


def settings_left_out(settings: Any, mark: str) -> list[str]:
    """The settings with a mark (``_LATER``, ``_LATEST``) that have their default."""
    return [
        entry.name
        for entry in fields(settings)
        if entry.metadata.get(mark)
        and getattr(settings, entry.name)
        == (entry.default_factory() if callable(entry.default_factory) else entry.default)
    ]
