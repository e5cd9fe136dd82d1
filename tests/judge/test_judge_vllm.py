"""The same grades by vLLM as by the model in this process."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from talking import TALKING

from tract import GradeRequest, Judge

pytest.importorskip("vllm", reason="vLLM is not installed; make test-vllm installs it")
pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]


def test_vllm_gives_the_same_grades(talking_folder: str, requests: Sequence[GradeRequest]) -> None:
    """Also from another thread than the main one, where the engine works, and with requests that come one by one."""
    greedy = {**TALKING, "temperature": 0.0}
    with Judge.from_pretrained(talking_folder, **greedy) as judge:
        expected = judge.grade_batch(requests, progress=False)
    small = {"enforce_eager": True, "kv_cache_gib": 0.5}
    with Judge.from_pretrained(talking_folder, "vllm", vllm=small, **greedy) as judge:
        found = judge.grade_batch(requests, progress=False)
        alone = judge.grade(requests[0].instruction, requests[0].response)
    same = [a.feedback == b.feedback for a, b in zip(found, expected, strict=True)]
    assert sum(same) >= len(same) - 1  # two tokens may be equally likely: rounding decides
    for one, other, equal in zip(found, expected, same, strict=True):
        assert one.score is not None
        if equal:
            assert (one.status, one.score) == (other.status, pytest.approx(other.score, abs=1e-3))
    assert alone.score == pytest.approx(found[0].score, abs=1e-3)
