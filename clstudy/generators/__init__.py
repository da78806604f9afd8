"""Generators: one file each, registered by name. A new one is added to ``_MODULES``."""

from __future__ import annotations

from importlib import import_module

_MODULES = ("embedded_generator", "checkpoint_generator", "eg3d_checkpoint", "embedded_3d", "image_classifier")


def load_generators() -> None:
    """Import every generator module so that it registers itself."""
    for module in _MODULES:
        import_module(f"{__name__}.{module}")
