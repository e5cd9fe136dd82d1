"""An exported judge in the real vLLM engine, on a CPU: the grades of the model in this process. Run: make test-vllm."""

from __future__ import annotations

import pytest
from judge_items import make_rubric_examples

from tract import GradeRequest, Judge
from tract.apps.export.exporting import Exported

# An engine's start alone takes minutes on a busy machine.
pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]


def test_an_export_is_served_as_it_is(merged: Exported) -> None:
    """From a thread of the judge's own, in a batch and one by one."""
    requests = [GradeRequest(example.instruction, example.response) for example in make_rubric_examples(4)]
    # Short, so that no place where two tokens are equally likely, and rounding decides, need be looked for.
    greedy = {"temperature": 0.0, "max_cot_tokens": 12, "least_score_mass": 0.0, "predictor": "rail"}
    with Judge.from_pretrained(merged.folder, **greedy) as judge:
        expected = judge.grade_batch(requests, progress=False)
    small = {"enforce_eager": True, "kv_cache_gib": 0.5}
    with Judge.from_pretrained(merged.folder, "vllm", vllm=small, **greedy) as judge:
        found = judge.grade_batch(requests, progress=False)
        alone = judge.grade(requests[0].instruction, requests[0].response)
    for one, other in zip([*found, alone], [*expected, expected[0]], strict=True):
        assert one.score is not None
        assert (one.status, one.feedbacks) == (other.status, other.feedbacks)
        assert one.distribution == pytest.approx(other.distribution, abs=1e-4)
        assert one.score == pytest.approx(other.score, abs=1e-3)
