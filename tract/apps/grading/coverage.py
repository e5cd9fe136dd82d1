"""What a calibration did to the intervals of grades, in words. Pure."""

from __future__ import annotations

import math

from tract.apps.grading.calibrating import Effect
from tract.judge.grades import CONFIDENCE

# Of the range in which the true share lies, with 95 % confidence: a wider one tells little.
_WIDEST = 0.2
_Z = 1.96


def interval_lines(gain: Effect) -> list[str]:
    """A sentence about the share of intervals that hold the true score, and a warning where the rows are too few to tell."""
    before, after = gain.coverage_before.value, gain.coverage_after.value
    if before is None or after is None:
        return []
    low, high = likely_share(after, gain.questions)
    line = f"intervals: {_percent(before)} held the target before, {_percent(after)} do after, where {_percent(CONFIDENCE)} are wanted: "
    if low > CONFIDENCE:
        verdict = "they are now too wide"
    elif high < CONFIDENCE:
        verdict = "they are still too narrow"
    elif after > CONFIDENCE and high - low > _WIDEST / 2:
        verdict = "they may be too wide now, which so few questions do not tell"
    else:
        verdict = "as wanted, as far as these rows tell"
    lines = [line + verdict]
    if high - low > _WIDEST:
        lines.append(
            f"warning: {gain.questions} questions are too few to tell how often the intervals hold: anything from {_percent(low)} to "
            f"{_percent(high)} fits; calibrate on more"
        )
    return lines


def likely_share(share: float, count: int) -> tuple[float, float]:
    """The range of true shares that fit a share among so many independent cases, with 95 % confidence (Wilson 1927)."""
    squared = _Z**2
    center = (share + squared / (2 * count)) / (1 + squared / count)
    half = _Z / (1 + squared / count) * math.sqrt(share * (1 - share) / count + squared / (4 * count**2))
    return max(0.0, center - half), min(1.0, center + half)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
