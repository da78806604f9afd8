"""What a stage is given of photos."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from clstudy.errors import PhotoError
from clstudy.identities.dataset import Photo
from clstudy.trial.photos import StagePhotos


def test_conditions_are_tensors_by_name() -> None:
    anything: Any = SimpleNamespace(device=torch.device("cpu"))
    photos = StagePhotos(basis=anything, workload=anything, store=anything, say=print)
    one = Photo(Path("1.png"), "a" * 64, {"camera": (1.0, 0.1), "age": (20.0,)})
    two = Photo(Path("2.png"), "b" * 64, {"camera": (0.0, 0.3), "age": (30.0,)})
    found = photos.conditions([two, one])
    assert list(found) == ["age", "camera"]
    assert torch.equal(found["age"], torch.tensor([[30.0], [20.0]]))
    assert found["camera"].dtype == torch.float32 and torch.equal(found["camera"], torch.tensor([[0, 0.3], [1, 0.1]]))
    assert photos.conditions([]) == {} and photos.conditions([Photo(Path("3.png"), "c" * 64)]) == {}
    for other in (cast("dict[str, tuple[float, ...]]", {}), {"age": (1.0,)}, {"camera": (1.0,), "age": (1.0,)}):
        with pytest.raises(PhotoError, match=r"photo 4\.png has the conditions .*, expected .* as 1\.png has"):
            photos.conditions([one, Photo(Path("4.png"), "d" * 64, other)])
