"""EG3D in plain PyTorch, under the parameter names of the published checkpoints.

Source: E. Chan et al., "Efficient Geometry-aware 3D Generative Adversarial Networks" (EG3D, 2112.07945): a StyleGAN2
makes tri-planes, a volume is rendered from them at low resolution, and two more blocks make the final image. Written
from the paper; the tiny reference network in ``tests/data`` fixes every convention.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from clstudy.generators.stylegan2 import StyleGAN2, StyleGAN2Settings
from clstudy.generators.super_resolution import SuperResolution, SuperResolutionSettings
from clstudy.generators.tri_planes import PUBLISHED_AXES, Decoder, sample_planes
from clstudy.generators.volume_rendering import (
    Jitter,
    Midpoints,
    Samples,
    camera_rays,
    composite,
    interval_weights,
    points_at,
    resampled_depths,
    spaced_depths,
)

_BOUNDS = {
    "resolution": (4, 1024),
    "near": (1e-3, 1e3),
    "far": (1e-3, 1e3),
    "box": (1e-3, 1e3),
    "coarse": (2, 1024),
    "fine": (0, 1024),
}
"""Of rendering settings, which may come from files: far beyond published ones."""


@dataclass(frozen=True, kw_only=True)
class RenderingSettings:
    """How a volume is rendered; the defaults are those of the published face models.

    Attributes:
        resolution: side of the rendered feature image in pixels.
        near: distance of the first sample from the camera.
        far: of the last.
        box: side of the cube around the origin that the tri-planes span.
        coarse: samples of the first pass along a ray.
        fine: samples of the second pass, where the first found something; 0: none.
        white_background: what is not absorbed is white instead of black.
        plane_axes: world axes along each plane's width and height.
    """

    resolution: int = 128
    near: float = 2.25
    far: float = 3.3
    box: float = 1.0
    coarse: int = 48
    fine: int = 48
    white_background: bool = False
    plane_axes: tuple[tuple[int, int], ...] = PUBLISHED_AXES

    def __post_init__(self) -> None:
        wrong = [
            f"{name} is {getattr(self, name)}; expected {low} to {high}"
            for name, (low, high) in _BOUNDS.items()
            if not low <= getattr(self, name) <= high
        ]
        if not self.near < self.far:
            wrong.append(f"far is {self.far}; expected more than near, {self.near}")
        if len(self.plane_axes) != 3 or not all(set(axes) < {0, 1, 2} and len(axes) == 2 for axes in self.plane_axes):
            wrong.append(f"plane_axes are {self.plane_axes}; expected three pairs of world axes 0, 1 and 2")
        if wrong:
            raise ValueError("; ".join(wrong))


@dataclass(frozen=True, kw_only=True)
class UsualCamera:
    """Where the cameras of a generator's photos stand; the defaults are those of the published face models.

    Attributes:
        radius: distance from the world's origin.
        pivot: the point in the world that they look at.
        focal: focal length, in shares of the photo's side.
        centre: principal point, in the same.
    """

    radius: float = 2.7
    pivot: tuple[float, float, float] = (0.0, 0.0, 0.2)
    focal: float = 4.2647
    centre: tuple[float, float] = (0.5, 0.5)


@dataclass(frozen=True, kw_only=True)
class EG3DSettings:
    """Everything that fixes the shape of an EG3D generator.

    Attributes:
        backbone: of the StyleGAN2 that makes the tri-planes: ``img_channels`` is three times ``features``.
        superresolution: of the last two blocks.
        rendering: of the volume.
        features: channels of a plane, and of the rendered image.
        hidden: width of the decoder's hidden layer.
        decoder_lr_multiplier: of the decoder's equalised learning rate.
        camera_scale: factor of the camera where it conditions the mapping network; 0: it does not.
        camera: where the cameras of its photos stand.

    Class attributes:
        kind: what such a network is called in files and messages.
    """

    backbone: StyleGAN2Settings
    superresolution: SuperResolutionSettings
    rendering: RenderingSettings = field(default_factory=RenderingSettings)
    features: int = 32
    hidden: int = 64
    decoder_lr_multiplier: float = 1.0
    camera_scale: float = 1.0
    camera: UsualCamera = field(default_factory=UsualCamera)

    kind: ClassVar[str] = "eg3d"

    def __post_init__(self) -> None:
        if self.backbone.img_channels != 3 * self.features:
            raise ValueError(
                f"the backbone's img_channels is {self.backbone.img_channels}; expected three planes of "
                f"{self.features} features, {3 * self.features}"
            )

    @property
    def img_resolution(self) -> int:
        """Side of the final image in pixels."""
        return self.superresolution.output_resolution

    def network(self) -> EG3D:
        """A network of these sizes with random weights."""
        return EG3D(self)

    def to_dict(self) -> dict[str, Any]:
        """Nested plain dictionaries, e.g. for a file's metadata."""
        return asdict(self)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> EG3DSettings:
        """The settings of ``to_dict``.

        Raises:
            TypeError: a part or an entry is missing or unknown.
            ValueError: the parts do not fit each other.
        """
        parts = dict(document)
        superresolution = dict(parts.pop("superresolution"))
        superresolution["channels"] = tuple(superresolution["channels"])
        rendering = dict(parts.pop("rendering"))
        rendering["plane_axes"] = tuple(map(tuple, rendering["plane_axes"]))
        camera = dict(parts.pop("camera"))
        return cls(
            backbone=StyleGAN2Settings(**parts.pop("backbone")),
            superresolution=SuperResolutionSettings(**superresolution),
            rendering=RenderingSettings(**rendering),
            camera=UsualCamera(**camera | {name: tuple(camera[name]) for name in ("pivot", "centre")}),
            **parts,
        )


class Rendered(NamedTuple):
    """What EG3D makes of a latent and a camera.

    Attributes:
        image: ``[n, 3, s, s]``, nominally in [-1, 1].
        raw: the rendered image before super-resolution, ``[n, 3, r, r]``, nominally in [-1, 1].
        depth: ``[n, 1, r, r]``, distance from the camera.
    """

    image: Tensor
    raw: Tensor
    depth: Tensor


class EG3D(nn.Module):
    """Mapping, tri-planes, rendering and super-resolution; loads published state dicts by name.

    Names: ``backbone.mapping.*``, ``backbone.synthesis.*``, ``decoder.net.*``, ``superresolution.*``.
    """

    def __init__(self, settings: EG3DSettings):
        super().__init__()
        self.settings = settings
        self.backbone = StyleGAN2(settings.backbone)
        self.decoder = Decoder(
            settings.features,
            settings.features,
            hidden=settings.hidden,
            lr_multiplier=settings.decoder_lr_multiplier,
        )
        self.superresolution = SuperResolution(settings.superresolution, settings.features, settings.backbone.w_dim)

    def mapping(
        self, z: Tensor, cameras: Tensor, *, truncation_psi: float = 1.0, truncation_cutoff: int | None = None
    ) -> Tensor:
        """ws ``[n, num_ws, w_dim]`` for z ``[n, z_dim]``, conditioned on cameras ``[n, 25]``.

        The camera stands for what photos from a side have in common (smiles, for one), not for the view itself.
        """
        ws: Tensor = self.backbone.mapping(
            z,
            cameras * self.settings.camera_scale,
            truncation_psi=truncation_psi,
            truncation_cutoff=truncation_cutoff,
        )
        return ws

    def tuned_parts(self) -> list[nn.Module]:
        """What is tuned to a person: all but the mapping network, the tri-planes' network first."""
        return [self.backbone.synthesis, self.decoder, self.superresolution]

    def planes(self, ws: Tensor, *, noise: bool = True) -> Tensor:
        """Tri-planes ``[n, 3, c, h, w]`` for ws ``[n, num_ws, w_dim]`` or w ``[n, w_dim]``."""
        planes: Tensor = self.backbone.synthesis(ws, noise=noise)
        return torch.unflatten(planes, 1, (3, self.settings.features))

    def at_points(self, planes: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        """Colour features ``[n, p, c]`` and densities before activation ``[n, p, 1]`` at points ``[n, p, 3]``."""
        rendering = self.settings.rendering
        colours, densities = self.decoder(sample_planes(planes, points, rendering.box, rendering.plane_axes))
        return colours, densities

    def render(
        self, planes: Tensor, cameras: Tensor, *, jitter: Jitter | None = None, resolution: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Feature images ``[n, c, r, r]`` in about [-1, 1] and depths ``[n, 1, r, r]``.

        Args:
            planes: of ``planes``.
            cameras: ``[n, 25]``.
            jitter: where samples lie within their shares of a ray; None: in their middles.
            resolution: side in pixels; None: that of the settings.
        """
        settings = self.settings.rendering
        size = resolution or settings.resolution
        jitter = jitter or Midpoints()
        rays = camera_rays(cameras, size)

        def seen_at(depths: Tensor) -> Samples:
            features, densities = self.at_points(planes, points_at(rays, depths))
            shape = depths.shape[1:3]
            return Samples(torch.unflatten(features, 1, shape), torch.unflatten(densities, 1, shape), depths)

        passes = [seen_at(spaced_depths(rays, settings.near, settings.far, settings.coarse, jitter))]
        if settings.fine:
            with torch.no_grad():
                weights = interval_weights(passes[0].densities, passes[0].depths)
            passes.append(seen_at(resampled_depths(passes[0].depths, weights, settings.fine, jitter)))
        seen = composite(passes)
        features = seen.features
        if settings.white_background:
            features = features + 1 - seen.weights.sum(2)
        images = torch.unflatten((features * 2 - 1).transpose(1, 2), 2, (size, size))
        return images, torch.unflatten(seen.depth.transpose(1, 2), 2, (size, size))

    def synthesis(
        self,
        ws: Tensor,
        cameras: Tensor,
        *,
        noise: bool = True,
        jitter: Jitter | None = None,
        resolution: int | None = None,
    ) -> Rendered:
        """Render ws ``[n, num_ws, w_dim]`` or w ``[n, w_dim]`` as cameras ``[n, 25]`` see it; without jitter, exactly.

        ``noise`` adds the backbone's constant noise; ``jitter`` and ``resolution`` are those of ``render``.
        """
        if ws.ndim == 2:
            ws = ws[:, None].expand(-1, self.settings.backbone.num_ws, -1)
        features, depth = self.render(self.planes(ws, noise=noise), cameras, jitter=jitter, resolution=resolution)
        return Rendered(self.superresolution(features, ws), features[:, :3], depth)

    def forward(self, z: Tensor, cameras: Tensor, *, truncation_psi: float = 1.0, noise: bool = True) -> Rendered:
        """Render z ``[n, z_dim]``, conditioned on the cameras ``[n, 25]`` that see it."""
        return self.synthesis(self.mapping(z, cameras, truncation_psi=truncation_psi), cameras, noise=noise)


def swapped(cameras: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Cameras ``[n, 25]`` that condition the mapping in training: each is another's of the batch with a probability.

    So that the mapping does not draw a face that knows from where it is seen (EG3D, section 4.4).
    """
    chance = torch.rand(len(cameras), 1, generator=generator, device=generator.device).to(cameras.device)
    return torch.where(chance < probability, cameras.roll(1, 0), cameras)
