"""How one run of a study is asked for."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING

from clstudy.errors import UserError

if TYPE_CHECKING:
    pass


def require_sane_numbers(args: argparse.Namespace) -> None:
    """Refuse counts below 1, and hours and prices that are none.

    Raises:
        UserError: names the option.
    """
    for option, count in (("--max-concurrent", args.max_concurrent), ("--timestamps", args.timestamps)):
        if count is not None and count < 1:
            raise UserError(f"{option} is {count}; expected at least 1")
    if args.gpu_share is not None and not 0 < args.gpu_share <= 1:
        raise UserError(f"--gpu-share is {args.gpu_share}; expected a share of one GPU, above 0 and at most 1")
    for option, number in (("--budget-hours", args.budget_hours), ("--price-per-hour", args.price_per_hour)):
        if number is not None and not (math.isfinite(number) and number > 0):
            raise UserError(f"{option} is {number}; expected a number above 0")
