"""Optional packages ("extras"), imported where they are used, with an error that says how to get them."""

from __future__ import annotations

import warnings
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType

from clstudy.errors import UserError


def import_extra(module: str, *, extra: str, wanted_by: str, instead: str) -> ModuleType:
    """Import a module of an optional package.

    Args:
        module: its dotted name.
        extra: the extra of clstudy that installs it.
        wanted_by: the setting or option that needs it, as the user wrote it.
        instead: what to do without it, as the end of a sentence.

    Raises:
        UserError: it is not installed, or is installed and cannot be imported.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import_module(module.partition(".")[0])
            return import_module(module)
    except ImportError as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) and error.name else module
        raise UserError(
            f"{wanted_by} needs a package that is not installed ({missing.partition('.')[0]}); "
            f"`pip install 'clstudy[{extra}]'`, or {instead}"
        ) from error
    except Exception as error:  # an incompatible binary raises RuntimeError, OSError or AttributeError
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{wanted_by} needs {module}, whose import failed: {said}. {_reinstallation(said)}, or {instead}"
        ) from error


def _reinstallation(said: str) -> str:
    if "torchvision" not in said:
        return "Install its packages again, in versions that are compatible"
    try:
        torch = version("torch")
    except PackageNotFoundError:
        torch = "is missing"
    return (
        f"Expected a torchvision of the same build as torch ({torch}): install both from one index, for CPUs `pip "
        "install --force-reinstall torch torchvision --index-url https://download.pytorch.org/whl/cpu`"
    )


def import_official_lpips() -> ModuleType:
    """The package ``lpips``.

    Raises:
        UserError: it is not installed, or torchvision does not fit torch.
    """
    return import_extra(
        "lpips",
        extra="lpips",
        wanted_by="evaluation.lpips_backend 'lpips'",
        instead="leave it at 'packaged', which gives the same values for the network 'alex'",
    )


def import_arcface() -> ModuleType:
    """insightface's module with ``ArcFaceONNX``.

    Raises:
        UserError: it is not installed.
    """
    return import_extra(
        "insightface.model_zoo.arcface_onnx",
        extra="insightface",
        wanted_by="evaluation.id_backend 'insightface'",
        instead="leave it at 'onnxruntime', which reads the same networks",
    )
