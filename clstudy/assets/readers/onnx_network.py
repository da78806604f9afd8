"""Open ONNX networks with onnxruntime, and recognise what they are."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import torch

from clstudy.assets.readers.onnx_file import first_node_names, require_whole
from clstudy.errors import UserError

EMBEDDING_CROP = 112
"""Side of the crop that the identity embedder sees, in pixels."""


def recognition_network(path: Path) -> Path:
    """The recognition network of an insightface pack folder; a file is returned as it is.

    Packs hold detection, landmark and attribute networks too. The file named ``w600k_*.onnx`` is taken, or, where
    there is none, the only one that has an embedder's input and output.

    Raises:
        UserError: neither file nor folder, or the folder does not hold exactly one such network.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise UserError(
            f"no identity embedder at {path}; expected an ONNX file, or the folder of an unpacked insightface pack "
            "(such as buffalo_l)"
        )
    files = sorted(path.glob("*.onnx"))
    found = [file for file in files if file.name.startswith("w600k_")]
    if not found:
        found = [file for file in files if not_an_embedder(open_network(file, 1, torch.device("cpu"))) is None]
    if len(found) != 1:
        held = ", ".join(file.name for file in files) or "no .onnx file"
        raise UserError(
            f"{path} holds {len(found)} recognition networks (it has {held}); expected exactly one with a "
            f"{EMBEDDING_CROP}x{EMBEDDING_CROP} input; name the file itself"
        )
    return found[0]


def takes_raw_pixels(path: Path) -> bool:
    """Whether an ArcFace network takes pixels 0..255 because it normalises them itself, by insightface's rule.

    Networks exported from MXNet begin with a subtraction and a multiplication. insightface recognises them by the
    names of the first eight nodes: one begins with "Sub" or "_minus", another with "Mul" or "_mul".
    """
    try:
        names = first_node_names(path.read_bytes(), 8)
    except ValueError as error:
        raise UserError(f"{path} is a damaged ONNX file ({error}); download it again") from error
    return any(name.startswith(("Sub", "_minus")) for name in names) and any(
        name.startswith(("Mul", "_mul")) for name in names
    )


def open_network(path: Path, threads: int, device: torch.device) -> onnxruntime.InferenceSession:
    """Open an ONNX network; on CUDA if wanted and available (onnxruntime falls back to the CPU without an exception).

    Raises:
        UserError: it cannot be read, or has weights in other files.
    """
    require_whole(path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    providers: list[str | tuple[str, dict[str, str]]] = ["CPUExecutionProvider"]
    if device.type == "cuda" and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        # TF32 and a timed search among algorithms are this provider's defaults; neither is repeatable float32.
        cuda = {"device_id": str(device.index or 0), "use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}
        providers.insert(0, ("CUDAExecutionProvider", cuda))
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # onnxruntime's own exceptions have no common base
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} cannot be read as an ONNX network: {said}") from error


def not_an_embedder(session: onnxruntime.InferenceSession) -> str | None:
    """What is wrong with a network's inputs and outputs, or None."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    found = f"it has inputs {_shapes(inputs)} and outputs {_shapes(outputs)}"
    if len(inputs) != 1 or len(outputs) != 1:
        return found
    shape, embedding = inputs[0].shape, outputs[0].shape
    free_or_one = len(shape) == 4 and (not isinstance(shape[0], int) or shape[0] == 1)
    if not free_or_one or list(shape[1:]) != [3, EMBEDDING_CROP, EMBEDDING_CROP] or len(embedding) != 2:
        return found
    if inputs[0].type != "tensor(float)":
        return f"its input is {inputs[0].type}, not tensor(float)"
    return None


def _shapes(values: list[onnxruntime.NodeArg]) -> str:
    return ", ".join(f"{value.name} {list(value.shape)}" for value in values)
