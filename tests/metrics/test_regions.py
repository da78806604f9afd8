"""LPIPS of eyes and mouth: where it looks, what it sees that LPIPS does not, and that it sees nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor

from clstudy.analysis.report import write_report
from clstudy.analysis.report_data import gather
from clstudy.faces.alignments import TRANSFORMS, ffhq_template
from clstudy.faces.embedding import ALIGNMENTS
from clstudy.faces.face_finder import FaceFinder
from clstudy.faces.geometry import aligned_template, warp
from clstudy.identities.dcgan import LATENT_SIZE, FaceSource
from clstudy.identities.orl import PEOPLE, fetch_orl, read_orl_photo
from clstudy.images import to_unit_range
from clstudy.metrics.base import MetricSettings
from clstudy.metrics.lpips import LPIPS, LPIPSMetric
from clstudy.metrics.lpips_eyes_mouth import (
    CROP,
    FACE_BOX,
    MOST_SHIFT,
    REGION_SIDES,
    EyesMouthMetric,
    region_centres,
)
from clstudy.settings.profiles import PROFILES
from tests.analysis import test_report


def noise(count: int, size: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def sources(count: int) -> list[np.ndarray]:
    """Faces of the packaged DCGAN in which the detector finds one, enlarged as a photo would be."""
    drawn = FaceSource().draw(np.random.default_rng(5).standard_normal((2 * count, LATENT_SIZE)))
    large = [np.asarray(Image.fromarray(face).resize((256, 256), Image.Resampling.BICUBIC)) for face in drawn]
    return [photo for photo in large if FaceFinder().find(photo) is not None][:count]


def orl_sources(cache: Path) -> list[np.ndarray]:
    """One photo of each of the 40 people."""
    faces = fetch_orl(cache)
    return [read_orl_photo(faces / f"s{person}" / f"{1 + person % 10}.pgm") for person in range(1, PEOPLE + 1)]


class People(NamedTuple):
    """Photos, and how far the landmarks of two boxes may lie apart in them, mean and largest, as shares of the side."""

    photos: list[np.ndarray]
    mean: float
    most: float


@pytest.fixture(scope="module", params=["dcgan", pytest.param("orl", marks=pytest.mark.network)])
def people(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> People:
    if request.param == "orl":
        return People(orl_sources(tmp_path_factory.mktemp("orl")), 0.01, 0.045)
    return People(sources(16), 0.025, 0.1)  # soft, and cut so tight that the detector's own box is a guess


def aligned(people: list[np.ndarray], alignment: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Photos uint8 ``[n, s, s, 3]`` and the centres ``[n, 3, 2]`` of eyes and mouth by the detector's box."""
    finder, photos, centres = FaceFinder(), [], []
    for source in people:
        face = finder.find(source)
        assert face is not None
        transform = TRANSFORMS[alignment](face.landmarks, size)
        photos.append(warp(source, transform, size))
        points = face.landmarks @ transform[:, :2].T + transform[:, 2]
        centres.append([points[36:42].mean(0), points[42:48].mean(0), points[[48, 54]].mean(0)])
    return np.stack(photos), np.array(centres)


@dataclass
class Stub:
    """A landmark network that answers what it is told, and remembers the box."""

    answer: Callable[[np.ndarray], np.ndarray]
    box: np.ndarray | None = None

    def landmarks(self, image: np.ndarray, box: np.ndarray) -> np.ndarray:
        self.box = box
        return self.answer(image)


def template_centres(alignment: str, size: int) -> np.ndarray:
    scale, offset = ALIGNMENTS[alignment](size)
    five = np.array([[38.2946, 51.6963], [73.5318, 51.5014], [41.5493, 92.3655], [70.7299, 92.2041]]) * scale + offset
    return np.stack([five[0], five[1], five[2:].mean(0)])


def metric(alignment: str = "embedded") -> EyesMouthMetric:
    return EyesMouthMetric(MetricSettings(alignment=alignment))


# --- where it looks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alignment", ["embedded", "ffhq"])
@pytest.mark.parametrize("size", [64, 256])
def test_the_fixed_box_gives_the_landmarks_of_the_detectors_box(people: People, alignment: str, size: int) -> None:
    """Within 1% of the side of a real photo on average; an eye is 11% wide (10% in an FFHQ photo)."""
    photos, centres = aligned(people.photos, alignment, size)
    answers = [region_centres(photo, FaceFinder(), alignment=alignment) for photo in photos]
    apart = np.linalg.norm(np.array([centre for centre, _ in answers]) - centres, axis=-1) / size
    print(f"{alignment} {size}: mean {apart.mean(0).round(4)}, largest {apart.max(0).round(4)} of the side")
    assert apart.mean() < people.mean and apart.max() < people.most
    assert not any(far.any() for _, far in answers)


@pytest.mark.parametrize("alignment", ["embedded", "ffhq"])
def test_the_alignments_own_places_are_its_template(alignment: str) -> None:
    template = aligned_template(1024) if alignment == "embedded" else ffhq_template(1024)
    own = np.stack([template[0], template[1], template[3:].mean(0)])
    assert np.abs(template_centres(alignment, 1024) - own).max() < 0.01 * 1024


@pytest.mark.parametrize("wrong", ["all in a corner", "one eye", "not finite"])
def test_a_region_with_implausible_landmarks_stays_where_the_alignment_has_it(wrong: str) -> None:
    scale, _ = ALIGNMENTS["embedded"](64)
    usual = template_centres("embedded", 64)
    landmarks = np.zeros((68, 2))
    landmarks[36:42], landmarks[42:48], landmarks[48:] = usual + 0.9 * MOST_SHIFT * scale * np.array([0.6, 0.8])[None]
    near = landmarks.copy()
    if wrong == "all in a corner":
        landmarks[:] = 0.0
    elif wrong == "one eye":
        landmarks[36:42] = usual[0] + 1.1 * MOST_SHIFT * scale * np.array([0.6, -0.8])
    else:
        landmarks[48:] = np.nan
    photo = np.zeros((64, 64, 3), np.uint8)
    centres, far = region_centres(photo, Stub(lambda _: landmarks), alignment="embedded")  # type: ignore[arg-type]
    assert (
        far.tolist()
        == {
            "all in a corner": [True, True, True],
            "one eye": [True, False, False],
            "not finite": [False, False, True],
        }[wrong]
    )
    kept = np.stack([near[36], near[42], near[48]])
    np.testing.assert_allclose(centres, np.where(far[:, None], usual, kept), atol=1e-9)


@pytest.mark.parametrize("alignment", ["embedded", "ffhq"])
def test_the_box_lies_inside_the_photo_and_grows_with_it(alignment: str) -> None:
    boxes = []
    for size in (64, 1024):
        stub = Stub(lambda _: np.zeros((68, 2)))
        region_centres(np.zeros((size, size, 3), np.uint8), stub, alignment=alignment)  # type: ignore[arg-type]
        assert stub.box is not None
        boxes.append((stub.box + 0.5) / size)
    np.testing.assert_allclose(*boxes, atol=1e-9)
    assert (boxes[0] > 0).all() and (boxes[0] < 1).all() and FACE_BOX[2] > FACE_BOX[0]


# --- what it measures -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("alignment", "size"), [("embedded", 64), ("ffhq", 64), ("ffhq", 512), ("embedded", 100)])
def test_equals_lpips_of_the_regions_that_pil_cuts_out(alignment: str, size: int) -> None:
    """PIL's ``resize`` with a box, which shares no code with ours, and the packaged LPIPS."""
    targets, images = noise(2, size), noise(2, size, seed=1)
    measure = metric(alignment)
    found = measure.pairs(images, measure.prepare(targets))
    scale, _ = ALIGNMENTS[alignment](size)
    expected = []
    for image, target in zip(images, targets, strict=True):
        photo = target.add(1).mul(127.5).round().byte().permute(1, 2, 0).numpy()
        centres, _ = region_centres(photo, FaceFinder(), alignment=alignment)
        pairs = []
        for centre, side in zip(centres, REGION_SIDES * scale, strict=True):
            pad = 2 * CROP  # PIL does not look beyond its box: the crop is cut out of a larger one
            step = side / CROP
            low, high = centre + 0.5 - side / 2 - pad * step, centre + 0.5 + side / 2 + pad * step
            border = int(np.ceil(max(-low.min(), high.max() - size, 0)))
            box = tuple(float(v) for v in (*(low + border), *(high + border)))
            crops = []
            for picture in (image, target):
                planes = [np.pad(plane.numpy(), border, mode="edge") for plane in picture]
                whole = [
                    np.asarray(Image.fromarray(p).resize((CROP + 2 * pad,) * 2, Image.Resampling.BILINEAR, box=box))
                    for p in planes
                ]
                crops.append(torch.from_numpy(np.stack(whole)[:, pad:-pad, pad:-pad]))
            pairs.append(crops)
        ours, theirs = (torch.stack(crops) for crops in zip(*pairs, strict=True))
        expected.append(LPIPS()(ours, theirs).mean())
    torch.testing.assert_close(found, torch.stack(expected), rtol=2e-3, atol=1e-5)


def test_zero_for_equal_images_symmetric_and_not_negative() -> None:
    measure, a, b = metric(), noise(3, 64), noise(3, 64, seed=1)
    measure._finder = Stub(lambda _: np.zeros((68, 2)))  # type: ignore[assignment]  # the same regions in a and b
    assert torch.equal(measure.pairs(a, measure.prepare(a)), torch.zeros(3))
    one, other = measure.pairs(b, measure.prepare(a)), measure.pairs(a, measure.prepare(b))
    assert (one > 0).all()
    torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("alignment", "size"), [("embedded", 64), ("ffhq", 256)])
def test_what_lies_outside_the_regions_changes_nothing_at_all(alignment: str, size: int) -> None:
    measure, targets, images = metric(alignment), noise(2, size), noise(2, size, seed=1)
    regions = measure.prepare(targets)
    looked_at = torch.stack([torch.einsum("rcy,rdx->yx", rows, columns) for rows, columns, _ in regions])[:, None] > 0
    share = looked_at.float().mean().item()
    assert 0.05 < share < 0.3, share
    elsewhere = torch.where(looked_at, images, noise(2, size, seed=2))
    assert torch.equal(measure.pairs(elsewhere, regions), measure.pairs(images, regions))
    inside = torch.where(looked_at, noise(2, size, seed=2), images)
    assert (measure.pairs(inside, regions) != measure.pairs(images, regions)).all()


def test_a_value_does_not_depend_on_the_batch_and_inputs_stay_as_they_are() -> None:
    measure, targets, images = metric(), noise(5, 64), noise(5, 64, seed=1)
    before = images.clone()
    together = measure.pairs(images, measure.prepare(targets))
    alone = [measure.pairs(images[i : i + 1], measure.prepare(targets[i : i + 1])) for i in range(5)]
    assert torch.equal(together, torch.cat(alone)) and torch.equal(images, before)
    assert together.shape == (5,) and together.dtype == torch.float32
    assert measure.pairs(images[:0], measure.prepare(targets[:0])).shape == (0,)


@pytest.mark.parametrize("alignment", ["embedded", "ffhq"])
@pytest.mark.parametrize("size", [32, 64, 200, 1024])
def test_any_size_and_any_picture_has_a_finite_value(alignment: str, size: int) -> None:
    flat = torch.cat([torch.full((1, 3, size, size), value) for value in (-1.0, 0.0, 1.0)])
    measure = metric(alignment)
    values = measure.pairs(flat.flip(0), measure.prepare(flat))
    assert values.isfinite().all() and values[1] == 0 and values[0] > 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_as_on_the_cpu() -> None:
    images, targets = noise(3, 64), noise(3, 64, seed=1)
    values = []
    for device in ("cpu", "cuda"):
        made = EyesMouthMetric(MetricSettings(device=torch.device(device)))
        with torch.backends.cudnn.flags(allow_tf32=False):
            values.append(made.pairs(images.to(device), made.prepare(targets.to(device))))
    torch.testing.assert_close(values[0], values[1], rtol=1e-4, atol=1e-5)


# --- what it sees ---------------------------------------------------------------------------------------------------


def ellipse(size: int, centre: np.ndarray, across: float, down: float) -> np.ndarray:
    """A soft ellipse ``[s, s, 1]``, 1 inside."""
    y, x = np.mgrid[:size, :size]
    return np.clip(3 * (1 - np.hypot((x - centre[0]) / across, (y - centre[1]) / down)), 0, 1)[..., None]


def shut(photo: np.ndarray, places: np.ndarray, across: float) -> np.ndarray:
    """The photo with skin in the places of eyes or mouth: each column has the colour of what lies below."""
    changed = photo.astype(float)
    for place in places:
        below = photo[round(place[1]) + 4][None].astype(float)
        changed += (below - changed) * ellipse(len(photo), place, across, 4)
    return changed


def smeared_elsewhere(photo: np.ndarray, mse: float) -> np.ndarray:
    """The photo with blurred hair, neck and background, by as much as gives the mean square error."""
    photo = photo.astype(float)
    face = ellipse(64, aligned_template()[:, :].mean(0) - [0, 3], 26, 34)
    change = (gaussian_filter(photo, (3, 3, 0)) - photo) * (1 - face)
    return photo + change * np.sqrt(mse / (change**2).mean())


@pytest.mark.parametrize("what", ["eyes", "mouth"])
def test_it_sees_shut_eyes_where_lpips_sees_hair(people: People, what: str) -> None:
    """Against an equally large error (MSE) in hair and background, LPIPS takes shut eyes for the smaller change."""
    photos, _ = aligned(people.photos, "embedded", 64)
    template = aligned_template()
    places, across = (template[:2], 6) if what == "eyes" else (template[3:].mean(0)[None], 10)
    gone = np.stack([shut(photo, places, across) for photo in photos])
    errors = ((gone - photos) ** 2).mean(axis=(1, 2, 3))
    hair = np.stack([smeared_elsewhere(photo, error) for photo, error in zip(photos, errors, strict=True)])
    values = {}
    for measure in (LPIPSMetric(), metric()):
        prepared = measure.prepare(to_unit_range(photos))
        values[measure.name] = [
            measure.pairs(to_unit_range(changed).clamp(-1, 1), prepared).numpy() for changed in (gone, hair)
        ]
        face, other = values[measure.name]
        print(f"{measure.name}: {what} {face.mean():.4f}, hair {other.mean():.4f}, worse {(face > other).mean():.0%}")
    face, other = values["lpips"]
    assert (face > other).mean() <= 0.5 and face.mean() < other.mean(), "LPIPS does not see it: what the metric is for"
    face, other = values["lpips_eyes_mouth"]
    assert (face > 10 * other).all() and face.mean() > 100 * other.mean()


# --- where it is used -----------------------------------------------------------------------------------------------


def test_the_profile_for_real_people_has_it_beside_lpips_and_no_key_of_another_profile_moves() -> None:
    assert PROFILES["few_photos"]().evaluation.metrics == ("lpips", "id", "psnr", "lpips_eyes_mouth")
    for name in set(PROFILES) - {"few_photos"}:
        assert "lpips_eyes_mouth" not in PROFILES[name]().evaluation.metrics


@pytest.mark.usefixtures("few_figures")
def test_reports_print_it_by_name_and_keep_lpips_in_front(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    regions = ("reconstruction", "lpips_eyes_mouth")
    monkeypatch.setattr(test_report, "PANELS", [regions, *test_report.PANELS])
    study = test_report.Study(tmp_path / "study", seeds=(0,))
    summary = write_report(study.folder)
    assert gather(summary).panel == ("reconstruction", "lpips") and regions in gather(summary).panels
    report = study.folder / "report"
    assert "## Reconstruction LPIPS of eyes and mouth" in (report / "tables.md").read_text()
    assert "Reconstruction LPIPS of eyes and mouth" in (report / "index.html").read_text()
    assert "lpips_eyes" not in (report / "tables.tex").read_text(), "LaTeX would not print the underscores"
