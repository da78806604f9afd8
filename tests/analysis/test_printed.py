"""Printed numbers never contradict the interval that they come from, and −BWT stands in Forgetting's direction."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clstudy.analysis.printed import (
    digits_for,
    interval_texts,
    mean_and_interval,
    number,
    printed_higher_is_better,
    printed_row,
    score_title,
)
from clstudy.settings.metric_facts import packaged_metrics


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ((-0.00012, -0.00026, -0.00004), ("-0.00012", "[-0.00026, -0.00004]")),
        ((0.00012, 0.000004, 0.00026), ("+0.000120", "[+0.000004, +0.000260]")),
        ((-0.0001, -0.0003, -3e-12), ("-0.0001000", "[-0.0003000, -3e-12]")),
        ((-2e-12, -3e-12, -1e-12), ("-2e-12", "[-3e-12, -1e-12]")),
        ((-0.0001, -0.0003, 0.00004), ("-0.0001", "[-0.0003, 0.0000]")),
        ((-0.00001, -0.0003, 0.0003), ("0.0000", "[-0.0003, +0.0003]")),
        ((0.25, 0.2, 0.3), ("+0.2500", "[+0.2000, +0.3000]")),
    ],
)
def test_a_limit_of_an_interval_that_excludes_zero_is_not_printed_as_zero(numbers, expected):
    assert mean_and_interval(*numbers, 4, signed=True) == expected


@given(st.floats(-1e3, 1e3), st.floats(0, 1e3), st.floats(0, 1e3), st.sampled_from([2, 4]), st.booleans())
def test_what_is_printed_says_what_the_interval_says(mean, below, above, digits, signed):
    low, high = mean - below, mean + above
    texts = interval_texts(mean, low, high, digits, signed=signed)
    if low > 0 or high < 0:
        assert all(float(text) and (float(text) > 0) == (mean > 0) for text in texts), (
            "no limit is 0, none has the other sign"
        )
    assert all("-0.0" not in text or float(text) for text in texts), "no negative zero"
    for text, value in zip(texts, (mean, low, high), strict=True):
        assert abs(float(text) - value) <= 0.5001 * 10.0**-digits


def test_the_common_case_keeps_its_digits_and_a_missing_interval_is_said():
    assert digits_for(None, None, 4) == digits_for(0.1, 0.2, 4) == digits_for(-0.00001, 0.2, 4) == 4
    assert mean_and_interval(0.25, None, None, 4, missing="no interval") == ("0.2500", "no interval")
    assert number(-0.00001, 4, signed=True) == number(0.0, 4) == "0.0000"


def test_bwt_is_printed_negated_with_its_limits_exchanged_and_others_as_they_are():
    row = {"score": "bwt", "metric": "lpips", "mean": -0.2, "low": -0.3, "high": -0.1}
    assert printed_row(row) == row | {"mean": 0.2, "low": 0.1, "high": 0.3}
    assert printed_row(row | {"low": None, "high": None})["low"] is None
    assert printed_row(row | {"score": "forgetting"}) == row | {"score": "forgetting"}
    assert score_title("bwt") == "−BWT" and score_title("aip") == "AIP"
    lpips, identity = packaged_metrics()["lpips"], packaged_metrics()["id"]
    for metric in (lpips, identity):
        assert not printed_higher_is_better("bwt", metric) and not printed_higher_is_better("forgetting", metric)
    assert printed_higher_is_better("aip", identity) and not printed_higher_is_better("aip", lpips)
