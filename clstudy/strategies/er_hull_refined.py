"""ER-Hull, refined: the same score as ER-Hull, minimised over the balanced subsets instead of sampled."""

from __future__ import annotations

from clstudy.strategies.base import STRATEGIES
from clstudy.strategies.er_hull import ErHull


@STRATEGIES.register("er_hull_refined")
class ErHullRefined(ErHull):
    """Exhaustive up to 5,000 balanced subsets; otherwise ``er_hull``'s choice and others, improved by exchanges."""

    name = "er_hull_refined"
    description = "er_hull's score, all balanced subsets or exchanges until none improves (ours: er_hull, refined)"
    refine = True
