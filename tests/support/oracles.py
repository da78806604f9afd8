"""Independent implementations that tests compare with."""

from __future__ import annotations

import functools
import warnings

import torch


@functools.cache  # operators can be declared once per process
def importable_torchvision() -> torch.library.Library:
    """Make torchvision importable; the declarations live as long as what is returned, which the cache keeps.

    The registry's torchvision does not import beside a CPU build of torch unless two operators exist; they are
    only declared here, nothing calls them.
    """
    library = torch.library.Library("torchvision", "DEF")
    for schema in (
        "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    ):
        library.define(schema)
    return library


@functools.cache
def official_lpips() -> torch.nn.Module:
    """The official ``lpips`` package with our packaged AlexNet weights in place of the hub's."""
    from safetensors.torch import load_file

    from clstudy.assets import asset_path

    importable_torchvision()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import lpips

        model = lpips.LPIPS(net="alex", version="0.1", pnet_rand=True, verbose=False)
    state = load_file(asset_path("lpips_alex.safetensors"))
    layers = [layer for layer in model.net.modules() if isinstance(layer, torch.nn.Conv2d)]
    with torch.no_grad():
        for index, layer in enumerate(layers):
            layer.weight.copy_(state[f"conv{index}.weight"])
            layer.bias.copy_(state[f"conv{index}.bias"])
    return model.eval()
