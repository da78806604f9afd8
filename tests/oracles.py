"""Independent implementations that tests compare with."""

from __future__ import annotations

import functools
import warnings

import torch


@functools.cache  # operators can be declared once per process
def official_lpips() -> torch.nn.Module:
    """The official ``lpips`` package with our packaged AlexNet weights in place of the hub's.

    The registry's torchvision does not import beside a CPU build of torch unless two operators exist; they are
    only declared here, nothing calls them.
    """
    from safetensors.torch import load_file

    from clstudy.assets import asset_path

    library = torch.library.Library("torchvision", "DEF")
    for schema in (
        "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    ):
        library.define(schema)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import lpips

        model = lpips.LPIPS(net="alex", version="0.1", pnet_rand=True, verbose=False)
    model._keep = library  # the declarations live as long as the library object
    state = load_file(asset_path("lpips_alex.safetensors"))
    layers = [layer for layer in model.net.modules() if isinstance(layer, torch.nn.Conv2d)]
    with torch.no_grad():
        for index, layer in enumerate(layers):
            layer.weight.copy_(state[f"conv{index}.weight"])
            layer.bias.copy_(state[f"conv{index}.bias"])
    return model.eval()
