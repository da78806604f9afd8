"""Copies of an EG3D to personalise, and how photos with cameras are anchored in it."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clstudy.errors import UserError
from clstudy.generators.base import DomainGenerator
from clstudy.generators.eg3d import EG3D, Rendered, RenderingSettings, UsualCamera
from clstudy.generators.low_rank import add_low_rank
from clstudy.generators.synthesis_copies import apply_compute
from clstudy.identities.cameras import look_at
from clstudy.images import to_uint8
from clstudy.metrics.lpips import LPIPS
from clstudy.settings.profiles import Profile
from clstudy.training.inversion import invert


def usual_view(camera: UsualCamera, yaw: float = 0.0, pitch: float = 0.0) -> Tensor:
    """A generator's usual camera, moved to a side: float32 ``[25]``; angles in degrees, as ``cameras.look_at``."""
    numbers = look_at(yaw, pitch, radius=camera.radius, pivot=camera.pivot, focal=camera.focal, centre=camera.centre)
    return torch.from_numpy(numbers).float()


def cropped_like(views: Tensor, photos: Tensor) -> Tensor:
    """Cameras that stand where ``views`` stand and crop as those of ``photos``; either is ``[25]`` or ``[n, 25]``."""
    places = views.to(photos)
    if photos.ndim > places.ndim:
        places = places.expand_as(photos)
    return torch.cat([places[..., :16], photos.expand_as(places)[..., 16:]], dim=-1)


def depth_picture(depth: Tensor, size: int, rendering: RenderingSettings) -> np.ndarray:
    """Depths ``[n, 1, r, r]`` as grey pictures uint8 ``[n, size, size, 3]``: near is bright."""
    shade = ((rendering.far - depth) / (rendering.far - rendering.near)).clamp(0, 1) * 2 - 1
    return to_uint8(F.interpolate(shade, (size, size), mode="nearest").expand(-1, 3, -1, -1))


class SeenEG3D(nn.Module):
    """w, and from where it is seen -> images; without a camera, from the front.

    Attributes:
        network: the EG3D without its mapping network, which nothing here needs.
        num_ws: how many layers of the backbone take a w of their own.
    """

    front: Tensor

    def __init__(self, network: EG3D):
        super().__init__()
        self.network = network
        self.num_ws = network.settings.backbone.num_ws
        self.register_buffer("front", usual_view(network.settings.camera), persistent=False)

    def rendered(self, latents: Tensor, cameras: Tensor | None = None) -> Rendered:
        """Image, raw image and depth of w ``[n, w_dim]`` or ws ``[n, num_ws, w_dim]``, without jitter."""
        if cameras is None:
            cameras = self.front.expand(len(latents), -1)
        return self.network.synthesis(latents, cameras)

    def forward(self, latents: Tensor, cameras: Tensor | None = None) -> Tensor:
        """Images ``[n, 3, s, s]``, nominally in [-1, 1]."""
        return self.rendered(latents, cameras).image


class EG3DCopies(DomainGenerator):
    """A generator whose copies are EG3D networks; what is trained are all weights or low-rank factors.

    The mapping network is never trained, since latents are w. With ``views.freeze_renderer`` the decoder and the
    super-resolution stay as they are, too.

    Args:
        network: pretrained.
        profile: for compute settings, low-rank factors, the inversion of anchors and views.
        device: where copies live.
        lpips: the loss's.
        encoder: photos ``[n, 3, s, s]`` -> w; None: anchors are found by optimisation.
        directions: semantic directions by name, ``[w_dim]``.

    Raises:
        UserError: there are directions, and ``views.edit`` names none of them.
    """

    def __init__(
        self,
        network: EG3D,
        profile: Profile,
        device: torch.device,
        lpips: LPIPS,
        encoder: nn.Module | None = None,
        *,
        directions: Mapping[str, Tensor] | None = None,
    ):
        edit = profile.views.edit
        if directions and edit and edit not in directions:
            raise UserError(
                f"views.edit is {edit!r}, and the file of directions has {', '.join(directions)}; name one of them, or "
                "leave it empty"
            )
        self.settings = network.settings
        self.latent_shape = (network.settings.backbone.w_dim,)
        self.device = device
        self.network = network.eval().requires_grad_(False).to(device)
        self._profile = profile
        self._lpips = lpips
        self._encoder = None if encoder is None else encoder.eval().requires_grad_(False).to(device)
        self.directions = {name: value.to(device) for name, value in (directions or {}).items()}

    def front(self, count: int) -> Tensor:
        """Cameras ``[count, 25]`` in front of the face: what copies use where they are given none."""
        return usual_view(self.settings.camera).to(self.device).expand(count, -1)

    def fresh(self, tunable: Mapping[str, Tensor] | None = None) -> SeenEG3D:
        network = copy.deepcopy(self.network)
        del network.backbone.mapping
        parts = network.tuned_parts()
        for part in parts[:1] if self._profile.views.freeze_renderer else parts:
            if self._profile.low_rank.rank:
                add_low_rank(part, self._profile.low_rank)
            else:
                part.requires_grad_(True)
        if not self.settings.superresolution.noise:  # has no part in the image
            for name, value in network.superresolution.named_parameters():
                if name.endswith("noise_strength"):
                    value.requires_grad_(False)
        module = SeenEG3D(network).train().to(self.device)
        if tunable is not None:
            module.load_state_dict(dict(tunable), strict=False)
        apply_compute(network.backbone.synthesis, self._profile.compute)
        return module

    def anchors(self, photos: Tensor) -> Tensor:
        return self.anchors_seen(photos, self.front(len(photos)))

    def anchors_seen(self, photos: Tensor, cameras: Tensor) -> Tensor:
        if self._encoder is not None:
            with torch.no_grad():
                # one at a time: an anchor must not depend on the others in a batch
                return torch.cat([self._encoder(photo[None]) for photo in photos])
        start = self.network.backbone.mapping.w_avg.expand(len(photos), -1)
        with torch.no_grad():
            features = self._lpips.features(photos)
        return invert(
            self.fresh().requires_grad_(False),
            photos,
            features,
            start,
            settings=self._profile.anchors.as_inversion(),
            lpips=self._lpips,
            cameras=cameras,
        )
