"""What a judge is asked about a request: for which scores, and with which token ids; or why it cannot be asked. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tract.artifacts.judge_settings import JudgeSettings
from tract.common.errors import DataError
from tract.inference.prompt_budget import tokens_behind
from tract.inference.sampling import Sampling
from tract.judge.requests import GradeRequest
from tract.text.layout import SequenceLayout
from tract.text.prompts import PromptText
from tract.text.schema import Rubric
from tract.text.score_grid import ScoreGrid
from tract.text.truncation import shortened


@dataclass(frozen=True, slots=True)
class RenderedPrompt:
    """A prompt, as it is given to the model.

    Attributes:
        prompt: its text, before anything was left out. ids: token ids of the chat-templated prompt, as they are given.
        shortened: whether the middle of a field was left out. refusal: why it cannot be given, or None.
    """

    prompt: PromptText
    ids: Sequence[int]
    shortened: bool = False
    refusal: str | None = None


def rendered_prompt(request: GradeRequest, layout: SequenceLayout, settings: JudgeSettings, sampling: Sampling) -> RenderedPrompt:
    """The prompt of a request.

    Args:
        layout: for the scores that are asked for. sampling: how CoTs are drawn; the longest of them must have room, as in all stages.
    """
    prompt = settings.prompt.render(request.example(), layout.grid)
    ids = layout.prompt_ids(prompt)
    reserve = tokens_behind(layout, sampling.max_cot_tokens)
    if settings.max_length is None or len(ids) <= (room := settings.max_length - reserve):
        return RenderedPrompt(prompt, ids)
    fitted = shortened(prompt, layout, room, settings.shorten) if settings.overlong == "shorten" else None
    if fitted is not None:
        return RenderedPrompt(prompt, fitted, shortened=True)
    reason = (
        f"max_length: the prompt has {len(ids)} tokens; {settings.max_length} less {reserve} for CoT and score leave {room};"
        " raise max_length, lower max_cot_tokens, or set overlong='shorten'"
    )
    return RenderedPrompt(prompt, ids, refusal=reason)


def ignored_fields(request: GradeRequest, settings: JudgeSettings) -> tuple[str, ...]:
    """What of a request the judge's prompt has no place for: "rubric", "reference_answer", "prompt"."""
    if settings.prompt.source == "finished":  # which holds all that there is
        return ()
    shown = settings.prompt.shown_fields
    rubric = request.rubric is not None and not shown & {"criteria", "score_descriptions", "rubric"}
    reference = bool(request.reference_answer) and "reference_answer" not in shown
    found = {"rubric": rubric, "reference_answer": reference, "prompt": request.prompt is not None}
    return tuple(name for name, is_ignored in found.items() if is_ignored)


def labels_for(rubric: Rubric | None, grid: ScoreGrid, *, fixed: bool) -> tuple[str, ...]:
    """The scores that a request is graded with: the judge's own, or those of the rubric where the judge was trained on none.

    Args:
        grid: the judge's. fixed: whether it was trained on it, or is held to it.

    Raises:
        DataError: if the rubric describes scores that the judge does not give.
    """
    labels = rubric.labels if rubric else ()
    if set(map(float, labels)) <= set(grid.values) and (fixed or len(labels) < 2):
        return grid.labels
    if fixed:
        off = next(label for label in labels if float(label) not in grid.values)
        raise DataError(
            f"rubric.descriptions: the score {off} is not one that this judge was trained to give ({', '.join(grid.labels)}); "
            "describe these, or load it with grid=[...] (--grid) to read other scores from it all the same"
        )
    if len(labels) < 2:
        raise DataError(f"rubric.descriptions: {', '.join(labels)} is no grid; describe two scores or more, or give grid=[...] (--grid)")
    return labels
