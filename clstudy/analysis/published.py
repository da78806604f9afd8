"""The paper's printed results, and whether a study may stand beside them.

Source: "Continual Learning of Personalized Generative Face Models with Experience Replay" (WACV 2025,
arXiv 2412.02627), tables as printed; LPIPS and ID are multiplied by ten there and brought back to their own unit here.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType

PAPER = "arXiv 2412.02627"
_FILE = Path(__file__).with_name("published_results.csv")
_TENFOLD = "_x10"
_UPPER = "upper"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One of the paper's experiments, for the profile that repeats it.

    Attributes:
        model: its name in ``published_results.csv``.
        people: the rows of it that are means over people, and how many people.
        timestamps: T; AIP and Forgetting of another T are other numbers.
        learning_rate: the one the tables were made with; None where it is not known.
    """

    model: str
    people: str
    n_people: int
    timestamps: int
    learning_rate: float | None


SETTINGS = {
    "mystyle": Setting(model="mystyle_2d", people="mean_of_5", n_people=5, timestamps=10, learning_rate=3e-4),
    "my3dgen": Setting(model="my3dgen_3d", people="mean_of_4", n_people=4, timestamps=10, learning_rate=None),
}
"""profile -> the paper's experiment. A profile that is not here has another generator, other faces or another size."""

Place = tuple[str, str, str, str, int | None]
"""protocol, metric, score, strategy, buffer size."""


def comparable(profile: str | None, timestamps: Iterable[int]) -> tuple[Setting | None, str]:
    """The paper's experiment that a study repeats (None: no number of the paper is comparable), and a sentence on it.

    Args:
        profile: the profile's name in ``study.yaml``, None where it names none.
        timestamps: T of every identity.
    """
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
    return setting, (
        f"Published values are the paper's ({PAPER}) as printed, means over its {setting.n_people} people without "
        "intervals, and over other photos than these: compare differences between strategies, not levels."
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
            # rounded, so that 1.17 / 10 is 0.117 and not its neighbour
            value = round(float(row["value"]) / 10, 6) if tenfold else float(row["value"])
            size = int(row["buffer_size"]) if row["buffer_size"] else None
            score = "final" if row["strategy"] == _UPPER else row["statistic"]
            values[row["protocol"], row["metric"].removesuffix(_TENFOLD), score, row["strategy"], size] = value
    return MappingProxyType(values)


def published_value(setting: Setting | None, place: Place, learning_rate: float | None) -> float | None:
    """The printed value of a cell, or None where the paper has none (another learning rate is another experiment)."""
    if setting is None or learning_rate != (setting.learning_rate or learning_rate):
        return None
    return published(setting).get(place)
