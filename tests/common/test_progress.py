"""Lines about progress: how often they come and what they say."""

from __future__ import annotations

import pytest

from tract.common.progress import Progress, duration


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lines() -> list[str]:
    return []


def run(clock: Clock, lines: list[str], steps: list[tuple[float, int]], total: int = 160, done: int = 0, every_s: float = 10) -> list[str]:
    """The lines after steps of (seconds, units)."""
    progress = Progress("generate", "CoTs", total, done, lines.append, every_s=every_s, clock=clock)
    for seconds, count in steps:
        clock.now += seconds
        progress.advance(count)
    return lines


def test_a_line(clock: Clock, lines: list[str]) -> None:
    assert run(clock, lines, [(15, 48)]) == ["generate: 48 of 160 CoTs (30 %), 3.2 CoTs/s, 35 s left"]


def test_what_was_done_before_is_no_part_of_the_rate(clock: Clock, lines: list[str]) -> None:
    assert run(clock, lines, [(15, 30)], done=100) == ["generate: 130 of 160 CoTs (81 %), 2.0 CoTs/s, 15 s left"]


def test_lines_come_now_and_then_and_at_the_end(clock: Clock, lines: list[str]) -> None:
    run(clock, lines, [(4, 1)] * 8, total=8)
    assert [line.split(" of ")[0] for line in lines] == ["generate: 3", "generate: 6", "generate: 8"]


def test_the_end(clock: Clock, lines: list[str]) -> None:
    assert run(clock, lines, [(1, 60), (1, 60)], done=40) == ["generate: 160 of 160 CoTs (100 %), 60.0 CoTs/s, done after 2 s"]


def test_only_the_end_is_100_percent(clock: Clock, lines: list[str]) -> None:
    (line,) = run(clock, lines, [(20, 999)], total=1000)
    assert "999 of 1000 CoTs (99 %)" in line


def test_without_anything_done_there_is_no_rate(clock: Clock, lines: list[str]) -> None:
    assert run(clock, lines, [(20, 0)], done=16) == ["generate: 16 of 160 CoTs (10 %)"]


def test_without_time_passed_there_is_no_rate(clock: Clock, lines: list[str]) -> None:
    assert run(clock, lines, [(0, 8)], every_s=0) == ["generate: 8 of 160 CoTs (5 %)"]


def test_nothing_to_do(clock: Clock, lines: list[str]) -> None:
    assert run(clock, lines, [(1, 0)], total=0) == ["generate: 0 of 0 CoTs (100 %), done after 1 s"]


@pytest.mark.parametrize(
    ("seconds", "rate", "left"),
    [
        (10, "0.1 CoTs/s", "10 s left"),
        (20, "3.0 CoTs/min", "20 s left"),
        (120, "0.5 CoTs/min", "2 min left"),
        (3600, "1.0 CoTs/h", "60 min left"),
        (7200, "0.5 CoTs/h", "2.0 h left"),
    ],
)
def test_slow_work_has_a_rate_too(seconds: float, rate: str, left: str, clock: Clock, lines: list[str]) -> None:
    assert run(clock, lines, [(seconds, 1)], total=2) == [f"generate: 1 of 2 CoTs (50 %), {rate}, {left}"]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (0.6, "1 s"), (89, "89 s"), (90, "2 min"), (720, "12 min"), (5399, "90 min"), (5400, "1.5 h"), (360000, "100.0 h")],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words
