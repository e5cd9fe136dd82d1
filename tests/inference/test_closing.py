"""A judge that spells its score out in other words than the cue: the score is read after the feedback before it, by every backend."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

import pytest
import torch
from plain_engine import PlainEngine

from tract.inference.engines.engine import Ask, Reply
from tract.inference.engines.judge import EngineJudge
from tract.inference.hf.judge import HFJudge
from tract.inference.judgement import SCORE, Judgement, Prompt
from tract.inference.sampling import Sampling
from tract.text.layout import SequenceLayout
from tract.text.prompts import PromptPart, PromptText

FEEDBACK = "The answer names three causes."
# As judges of the Prometheus kind end, and others; with the project's cue or without it.
ENDINGS = (
    " So the overall score is 4. [RESULT] 4",
    " [RESULT] 4",
    "\nRating: 4/5",
    " I would give it a 4.",
    " Thus it is rated 4. So the overall score is 4",
)
SAMPLING = Sampling(1.0, 1.0, 1.0, 200)


@pytest.fixture
def prompt(tiny_layout: SequenceLayout) -> Prompt:
    return Prompt("a", 0, tuple(tiny_layout.prompt_ids(PromptText("", (PromptPart("Why did it fall?"),)))))


def written_by_hf(
    model: Any, layout: SequenceLayout, prompt: Prompt, ids: list[int], monkeypatch: pytest.MonkeyPatch, *, free: bool
) -> Judgement:
    """The judgement of a model that draws these tokens."""
    drawn = iter([*ids, layout.end_id])

    def draw(logits: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return torch.full((len(logits),), next(drawn, layout.end_id))

    for module in ("judge", "readout"):
        monkeypatch.setattr(f"tract.inference.hf.{module}.draw_tokens", draw)
    (judgement,) = HFJudge(model, layout, SAMPLING, 0, None).judge([prompt], 1, rows=1, without_cot=False, free=free)
    return judgement


class Scripted(PlainEngine):
    """Writes given tokens where a CoT is asked for."""

    def __init__(self, model: Any, tokenizer: Any, prompt: Prompt, ids: list[int]) -> None:
        super().__init__(model, tokenizer)
        self._prompt, self._ids = len(prompt.prompt_ids), ids

    async def complete(self, ask: Ask) -> Reply:
        if ask.logprob_ids:
            return await super().complete(ask)
        rest = self._ids[len(ask.ids) - self._prompt :]
        return Reply(tuple(rest[: ask.max_tokens]), len(rest) <= ask.max_tokens, {})


def written_by_engine(model: Any, layout: SequenceLayout, prompt: Prompt, ids: list[int], *, free: bool) -> Judgement:
    def start() -> Coroutine[Any, Any, Any]:
        async def engine() -> Any:
            return Scripted(model, layout.tokenizer, prompt, ids)

        return engine()

    judge = EngineJudge(start, layout, SAMPLING, 0)
    (found,) = judge.judge_parts([[prompt]], 1, rows=1, without_cot=False, free=free, progress=lambda _: None)
    return found[0]


@pytest.mark.parametrize("free", [True, False])
@pytest.mark.parametrize("ending", ENDINGS)
def test_the_score_is_read_after_the_feedback_alone(
    ending: str, free: bool, talking_model: Any, tiny_layout: SequenceLayout, prompt: Prompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    feedback = tiny_layout.cot_ids(FEEDBACK)
    ids = [*feedback, *tiny_layout.cot_ids(ending)]
    (expected,) = HFJudge(talking_model, tiny_layout, SAMPLING, 0, None).read([prompt], [[(0, feedback)]])
    engine = written_by_engine(talking_model, tiny_layout, prompt, ids, free=free)
    hf = written_by_hf(talking_model, tiny_layout, prompt, ids, monkeypatch, free=free)
    for judgement in (hf, engine):
        assert judgement.cot.strip() == FEEDBACK
        assert judgement.cot_ids == tuple(feedback)
        assert judgement.probabilities == pytest.approx(expected.probabilities, abs=1e-5)
        # The cue itself, where it comes first, ends the CoT as ever.
        assert judgement.finish == ("cue" if ending.startswith(" So the overall score is") else SCORE)
        assert ending.strip()[:20] in (judgement.raw_output or "")


def test_a_mention_of_a_score_stays(
    talking_model: Any, tiny_layout: SequenceLayout, prompt: Prompt, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = tiny_layout.cot_ids(f"{FEEDBACK} It meets the criteria for a score of 4.")
    judgement = written_by_hf(talking_model, tiny_layout, prompt, ids, monkeypatch, free=True)
    assert (judgement.finish, judgement.cot_ids) == ("end", tuple(ids))
