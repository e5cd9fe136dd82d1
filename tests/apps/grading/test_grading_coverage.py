"""What a calibration did to the intervals, in words."""

from __future__ import annotations

import pytest

from tract.apps.grading.calibrating import Effect
from tract.apps.grading.coverage import interval_lines, likely_share
from tract.evaluation.scored import Estimate


def effect(before: float | None, after: float | None, questions: int) -> Effect:
    other = Estimate(0.0, 0.0, 0.0)
    return Effect(other, other, other, Estimate(before, before, before), Estimate(after, after, after), questions, questions, 5)


@pytest.mark.parametrize(
    ("after", "questions", "verdict", "warned"),
    [
        (1.0, 200, "they are now too wide", False),
        (0.6, 200, "they are still too narrow", False),
        (0.9, 200, "as wanted, as far as these rows tell", False),
        (1.0, 12, "they may be too wide now, which so few questions do not tell", True),
        (0.9, 20, "as wanted, as far as these rows tell", True),
    ],
)
def test_the_verdict(after: float, questions: int, verdict: str, warned: bool) -> None:
    lines = interval_lines(effect(0.6, after, questions))
    assert lines[0] == f"intervals: 60 % held the target before, {100 * after:.0f} % do after, where 90 % are wanted: {verdict}"
    assert len(lines) == 1 + warned


def test_without_a_value_nothing_is_said() -> None:
    assert interval_lines(effect(None, None, 5)) == []


def test_likely_share_is_wilsons() -> None:
    assert likely_share(0.5, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    assert likely_share(1.0, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)
    assert likely_share(0.0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
