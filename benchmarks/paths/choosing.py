"""The choice of photos: ER-Hull over the candidates of a late timestamp."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np

from benchmarks.checkout import module
from benchmarks.paths.base import BASELINE, OURS, HotPath, Prepared, Work

CAPACITY, SIZES, SUBSETS, PLAIN = 10, (5, 5, 20), 5000, 5


class HullSelection(HotPath):
    """The best of 5,000 balanced subsets of 10 out of 30 candidates in 512 dimensions."""

    title: ClassVar[str] = "hull selection (K = 10 of 30, 5,000 subsets)"
    unit: ClassVar[str] = "choice"
    baseline: ClassVar[str] = "SLSQP for each distance, 5 subsets extrapolated"
    comparable: ClassVar[bool] = True

    def prepare(self, folder: Path) -> Prepared:
        from benchmarks.hull_selection import person, plain_score
        from clstudy.strategies.balance import draw_subsets

        case = person(SIZES, np.random.default_rng([0, CAPACITY]))
        choose = module("hull").select_hull_subset

        def ours() -> None:
            choose(*case, CAPACITY, rng=np.random.default_rng(0), num_subsets=SUBSETS)

        subsets = draw_subsets(case[1], CAPACITY, SUBSETS, np.random.default_rng(0))
        some = subsets[:: len(subsets) // PLAIN][:PLAIN]

        def plain() -> None:
            for subset in some:
                plain_score(*case, subset)

        return Prepared({OURS: Work(ours), BASELINE: Work(plain, len(some) / len(subsets))})
