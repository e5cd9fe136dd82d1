"""Waiting for a busy server: as long as it asks, else longer each time, and not for ever."""

from __future__ import annotations

import asyncio
import email.utils
import logging
import time
from typing import Any

import pytest

from tract.common.errors import GenerationError
from tract.inference.chat.waiting import BusyError, asked_wait, with_retries


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that were waited, without waiting."""
    found: list[float] = []

    async def sleep(seconds: float) -> None:
        found.append(seconds)

    monkeypatch.setattr("tract.inference.chat.waiting.asyncio.sleep", sleep)
    return found


def asked(*answers: Any, max_retries: int = 5) -> Any:
    left = list(answers)

    async def ask() -> Any:
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    return asyncio.run(with_retries(ask, max_retries, "m", set()))


def test_it_waits_as_long_as_it_is_asked_to(waits: list[float], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert asked(BusyError("busy", 432.0), BusyError("busy", 0.25), "answer") == "answer"
    assert 432.0 <= waits[0] <= 432.5
    assert 0.25 <= waits[1] <= 1.25
    assert [record.message for record in caplog.records] == ["m: busy; requests wait as it asks and are retried"]


def test_without_a_wish_it_waits_longer_each_time(waits: list[float]) -> None:
    assert asked(*(BusyError("busy") for _ in range(7)), "answer", max_retries=7) == "answer"
    for found, most in zip(waits, [0.5, 1, 2, 4, 8, 8, 8], strict=True):
        assert 0.75 * most <= found <= most


def test_it_does_not_wait_for_ever(waits: list[float]) -> None:
    with pytest.raises(GenerationError, match=r"^busy \(3 attempts\)$"):
        asked(*(BusyError("busy", 1.0) for _ in range(3)), max_retries=2)
    with pytest.raises(GenerationError, match=r"^busy \(1 attempt\)$"):
        asked(BusyError("busy"), max_retries=0)
    assert len(waits) == 2
    with pytest.raises(GenerationError, match=r"^busy \(it asks for a wait of 86400 s; the longest is 3600 s\)$"):
        asked(BusyError("busy", 86400.0))


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "70"}, 70.0), ({"retry-after": "0.5"}, 0.5), ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": "-3"}, 0.0), ({"retry-after": "soon"}, None), ({"retry-after": "nan"}, None), ({}, None),
    ],
)  # fmt: skip
def test_what_headers_ask_for(headers: dict[str, str], seconds: float | None) -> None:
    assert asked_wait(headers) == seconds


def test_a_date_is_a_wait_too() -> None:
    assert asked_wait({"retry-after": email.utils.formatdate(time.time() + 90, usegmt=True)}) == pytest.approx(90, abs=2)
    assert asked_wait({"retry-after": email.utils.formatdate(time.time() - 90, usegmt=True)}) == 0.0
