"""The paper's printed results, and whether a study's numbers are comparable with them.

Source: "Continual Learning of Personalized Generative Face Models with Experience Replay" (WACV 2025,
arXiv 2412.02627), tables as printed; LPIPS and ID are multiplied by ten there and converted back here.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from clstudy.settings.metric_facts import as_published, packaged_metrics

PAPER = "arXiv 2412.02627"
_FILE = Path(__file__).with_name("published_results.csv")
_TENFOLD = "_x10"
_UPPER = "upper"


@dataclass(frozen=True, kw_only=True)
class Practice:
    """Settings that may differ from the paper's scripts; the defaults apply to studies that do not name them.

    Attributes:
        latent_space: of test-time inversion, "w" or "w_plus".
        synthesis_weights: of the anchors in a synthesis latent, "uniform" on the simplex or "normalised" numbers.
        short_batch_replay: replayed photos of an epoch's short last batch, "full" or "as_new" (as many as new ones).
        lpips_network: that the metric LPIPS is computed on, "alex", "vgg" or "squeeze".
    """

    latent_space: str = "w"
    synthesis_weights: str = "uniform"
    short_batch_replay: str = "full"
    lpips_network: str = "alex"


SCRIPTS = Practice(latent_space="w_plus", synthesis_weights="normalised", short_batch_replay="as_new")
"""The settings of the paper's scripts in 2D."""

SCRIPTS_3D = Practice(latent_space="w", synthesis_weights="normalised", short_batch_replay="as_new")
"""In 3D."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One of the paper's experiments, for the profile that repeats it.

    Attributes:
        model: its name in ``published_results.csv``.
        people: the rows of that model that are means over people, and the number of people.
        timestamps: T; AIP and Forgetting are not comparable between different T.
        learning_rate: that of the tables; None if it is not known.
        scripts: the settings of the scripts behind the tables.
        more: what those scripts do otherwise than any study here.
    """

    model: str
    people: str
    n_people: int
    timestamps: int
    learning_rate: float | None
    scripts: Practice = SCRIPTS
    more: tuple[str, ...] = ()


SETTINGS = {
    "mystyle": Setting(model="mystyle_2d", people="mean_of_5", n_people=5, timestamps=10, learning_rate=3e-4),
    "my3dgen": Setting(
        model="my3dgen_3d",
        people="mean_of_4",
        n_people=4,
        timestamps=10,
        learning_rate=None,
        scripts=SCRIPTS_3D,
        more=("cameras come from the packaged landmarks and head, there from a reconstruction network",),
    ),
}
"""profile -> the paper's experiment. Other profiles have another generator, other faces or another size."""


ELSEWHERE = {
    "class_gan": "Published for this method, and not comparable (arXiv 1809.02058, LSUN after four categories: "
    "accuracy and reverse accuracy in percent, FID of Inception): joint training with replay 79.19, 70.00, 49.69; "
    "replay alignment 81.03, 83.62, 37.73.",
    "ageing": "Published for this method, and not comparable (arXiv 2411.14521; AgeMAE in years, identity): table "
    "1 SAM 8.1, 0.49, MyTimeMachine 7.8, 0.67; table 2 SAM 6.9, 0.54, MyTimeMachine 6.3, 0.70; of 10, 50, 100 photos "
    "AgeMAE 8.5, 7.8, 8.0 and identity 0.58, 0.67, 0.67; without the loss beyond the learned ages AgeMAE rises "
    "from 11.0 to 17.9.",
}
"""Workload -> what another paper printed for it."""

_PARTS = {
    "latent_space": "inversion",
    "synthesis_weights": "evaluation",
    "short_batch_replay": "trainer",
    "lpips_network": "evaluation",
}
"""Setting -> the section of the profile in ``study.yaml`` that contains it."""

_IMAGES = (
    "images are scored as they are, there stretched to their own minimum and maximum and stored as JPEG first",
    "values are not rounded, there to 3 decimals, and PSNR is cut to whole dB",
)
_IDENTITY = (
    "ID is of a fixed face crop, there of the whole image, averaged to 112 px",
    "ID's network is the study's own, there IR-SE-50",
)
_ENCODING = (
    "without an encoder's file anchors and starting latents are optimised, there they always come from the encoder"
)
_CHOICES = {
    (
        "latent_space",
        "w_plus",
    ): "test photos are inverted in W, there in W+, which shrinks differences as well as levels",
    ("latent_space", "w"): "test photos are inverted in W+, there in W, which keeps differences large",
    (
        "synthesis_weights",
        "normalised",
    ): "weights of synthesis latents are uniform on the simplex, there three uniform numbers are "
    "divided by their sum, which spreads less",
    (
        "short_batch_replay",
        "as_new",
    ): "the last batch of an epoch, if short, gets as much replay as any other, there only as many "
    "replayed photos as it has new ones",
    ("lpips_network", "alex"): "LPIPS is computed on another network, there on AlexNet",
}
"""Setting and its value in the scripts -> text on what differs if a study has another."""


def read_practice(profile: Any) -> Practice:
    """The practice of a study from the profile in its ``study.yaml``, which may be a name only, or be older.

    Raises:
        TypeError: a setting is not a string.
    """
    found = {}
    for name, part in _PARTS.items():
        settings = profile.get(part) if isinstance(profile, Mapping) else None
        value = settings.get(name) if isinstance(settings, Mapping) else None
        if value is not None and not isinstance(value, str):
            raise TypeError(f"profile.{part}.{name} is {str(value)[:40]}, expected a name")
        if value is not None:
            found[name] = value
    return Practice(**found)


def differences(practice: Practice, setting: Setting, measured: Collection[str] = ("id",)) -> list[str]:
    """Texts on how a study differs from the paper's scripts; "there" means in the scripts.

    Args:
        practice: the study's.
        setting: the paper's experiment.
        measured: the study's metrics. Fewer differences apply to those that are computed as by the scripts.
    """
    twins = [name for name, twin in as_published().items() if twin in measured]
    identity = [name for name in twins if name == "id"]
    choices = [entry.name for entry in fields(Practice)]
    return [
        "other people and photos, and perhaps other pretrained weights",
        *(text + _excepted(twins) for text in _IMAGES),
        *(text + _excepted(identity) for text in _IDENTITY if "id" in measured),
        _ENCODING,
        *(
            _CHOICES[name, there]
            for name in choices
            if getattr(practice, name) != (there := getattr(setting.scripts, name))
        ),
        *setting.more,
    ]


def _excepted(twins: Collection[str]) -> str:
    """The columns that a difference in scoring does not apply to."""
    named = ", ".join(map(str.upper, twins))
    return f" (not so in the columns as published, {named}: they are scored the scripts' way)" if twins else ""


Place = tuple[str, str, str, str, int | None]
"""protocol, metric, score, strategy, buffer size."""


def comparable(
    profile: str | None,
    timestamps: Iterable[int],
    practice: Practice = Practice(),
    measured: Collection[str] = ("id",),
    workload: str = "",
) -> tuple[Setting | None, str]:
    """The paper's experiment that a study repeats (None: no number of the paper is comparable), and a note on it.

    Args:
        profile: the profile's name in ``study.yaml``, None if it has none.
        timestamps: T of every identity.
        practice: the study's settings that may differ from the scripts'.
        measured: the study's metrics.
        workload: of the study.
    """
    if workload in ELSEWHERE:
        return None, ELSEWHERE[workload]
    setting = SETTINGS.get(profile or "")
    if setting is None:
        named = "a profile that study.yaml does not name" if profile is None else f"profile {profile}"
        return None, (
            f"No published values beside these: {named} is not comparable with the paper's ({PAPER}): other generator, "
            "faces and size."
        )
    others = sorted(set(timestamps) - {setting.timestamps})
    if others:
        return None, (
            f"No published values beside these: T = {', '.join(map(str, others))} here and {setting.timestamps} in the "
            f"paper ({PAPER}), and AIP and Forgetting depend on it."
        )
    listed = "; ".join(f"({n}) {text}" for n, text in enumerate(differences(practice, setting, measured), start=1))
    return setting, (
        f"Published values are the paper's ({PAPER}) as printed, means over its {setting.n_people} people without "
        "intervals: compare differences between strategies, not levels. What this study does otherwise than "
        f'the scripts behind them ("there"): {listed}.'
    )


@cache
def published(setting: Setting) -> MappingProxyType[Place, float]:
    """Printed means of an experiment in the metric's own unit; ``upper`` is printed under AIP and is ``final`` here."""
    values: dict[Place, float] = {}
    with _FILE.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if (row["model"], row["identity"]) != (setting.model, setting.people):
                continue
            tenfold = row["metric"].endswith(_TENFOLD)
            # rounded, so that 1.17 / 10 is 0.117 and not the next float
            value = round(float(row["value"]) / 10, 6) if tenfold else float(row["value"])
            size = int(row["buffer_size"]) if row["buffer_size"] else None
            score = "final" if row["strategy"] == _UPPER else row["statistic"]
            values[row["protocol"], row["metric"].removesuffix(_TENFOLD), score, row["strategy"], size] = value
    return MappingProxyType(values)


def published_value(
    setting: Setting | None, place: Place, learning_rate: float | None, measured: Collection[str] = ()
) -> float | None:
    """The printed value of a cell, or None if the paper has none (another learning rate is another experiment).

    If a metric is also ``measured`` as by the scripts, the value belongs to that column only.
    """
    if setting is None or learning_rate != (setting.learning_rate or learning_rate):
        return None
    protocol, metric, score, strategy, size = place
    if as_published().get(metric) in measured:
        return None
    facts = packaged_metrics().get(metric)
    ordinary = metric if facts is None or facts.twin_of is None else facts.twin_of
    return published(setting).get((protocol, ordinary, score, strategy, size))
