"""From a judge example to the text of its prompt, in pieces, so that a long field can be shortened later."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from tract.common.errors import ConfigError, DataError
from tract.text.heading_escapes import escape_headings
from tract.text.schema import JudgeExample
from tract.text.score_grid import ScoreGrid
from tract.text.score_statement import RESULT_TAG

# Stands where the middle of an overlong field was left out.
GAP = " [...] "

_PLACEHOLDER = re.compile(r"\{([A-Za-z_]\w*)\}")
# In a finished prompt, whose wording is not told from the text that it shows.
_HEADING_LINE = re.compile(r"^(?:#+.*:[ \t]*$|Score [^\s:]+:)", re.MULTILINE)
# What a finished prompt asks to be written at the end: "[RESULT] (an integer number between 1 and 5)".
_OUTPUT_FORMAT = re.compile(re.escape(RESULT_TAG) + r"(?=\s*\([^()\n]*\b(?:integer|number|score)\b[^()\n]*\))")
EXAMPLE_FIELDS = ("instruction", "response", "reference_answer", "criteria", "score_descriptions", "rubric")
GRID_FIELDS = ("lowest", "highest", "scores", "cue")


@dataclass(frozen=True, slots=True)
class PromptPart:
    """A piece of the user turn; ``field`` names the example's field that it shows, None for the template's wording."""

    text: str
    field: str | None = None


@dataclass(frozen=True, slots=True)
class PromptText:
    """The text of a prompt before the chat template."""

    system: str
    parts: tuple[PromptPart, ...]

    @property
    def user(self) -> str:
        """The whole user turn."""
        return "".join(part.text for part in self.parts)

    def shorten(self, field: str, keep_chars: int) -> PromptText:
        """The prompt with the middle of a field left out, so that about ``keep_chars`` of its characters stay."""

        def cut(text: str) -> str:
            if len(text) <= keep_chars + len(GAP):  # a gap would not make it shorter
                return text
            head = (keep_chars + 1) // 2
            return text[:head] + GAP + text[len(text) - (keep_chars - head) :]

        parts = tuple(replace(part, text=cut(part.text)) if part.field == field else part for part in self.parts)
        return replace(self, parts=parts)


def asking_for_cue(finished: str, cue: str) -> str:
    """A finished prompt that asks for the cue in place of "[RESULT] (an integer number ...)", where it first asks for that."""
    asked = _OUTPUT_FORMAT.search(finished)
    return finished if asked is None else f"{finished[: asked.start()].rstrip()} {cue.strip()}{finished[asked.end() :]}"


@dataclass(frozen=True)
class PromptTemplate:
    """How a prompt is worded, and the answer cue that it asks for; both belong together.

    Attributes:
        source: "template": fill ``blocks``; "finished": the source's own finished prompt, verbatim.
        system: the system turn; may hold the grid's placeholders; empty for none.
        blocks: pieces of the user turn, joined by blank lines; a block with a placeholder of a field that the example
            lacks (reference answer, rubric) is left out.
        cue: the fixed text between CoT and score.
        use_reference: whether the reference answer is shown where there is one (only for ``source="template"``).
        require_cue_in_prompt: refuse prompts that do not ask for the cue, and so for another output than is trained.
        reword_output_format: a finished prompt that asks for "[RESULT] (an integer number ...)" asks for the cue instead; its other
            wording and what it shows stay.
        escape_headings: write a backslash before each line of a field that reads like one of the template's own headings, see
            ``tract.text.heading_escapes``. In a finished prompt, for response and reference answer where they stand in it once.

    Raises:
        ConfigError: on an unknown placeholder, an empty cue or a template without the response.
    """

    source: str
    system: str
    blocks: tuple[str, ...]
    cue: str
    use_reference: bool
    require_cue_in_prompt: bool
    reword_output_format: bool
    escape_headings: bool

    def __post_init__(self) -> None:
        if self.source not in ("template", "finished"):
            raise ConfigError(f"prompt.source: {self.source!r} is not accepted; use 'template' or 'finished'")
        if not self.cue.strip():
            raise ConfigError(f"prompt.cue: {self.cue!r} is blank; give the text between CoT and score, e.g. ' So the overall score is '")
        blocks = [(f"prompt.blocks[{k}]", block, EXAMPLE_FIELDS + GRID_FIELDS) for k, block in enumerate(self.blocks)]
        for key, text, known in [("prompt.system", self.system, GRID_FIELDS), *blocks]:
            for name in _PLACEHOLDER.findall(text):
                if name not in known:
                    raise ConfigError(f"{key}: unknown placeholder {{{name}}}; accepted are {', '.join(known)}")
        if self.source == "template" and not any("{response}" in block for block in self.blocks):
            raise ConfigError("prompt.blocks: no block holds {response}, so the judge would not see what it grades; add it")

    @property
    def shown_fields(self) -> frozenset[str]:
        """The fields of an example that prompts show where it has them; of a finished prompt, none by itself."""
        if self.source == "finished":
            return frozenset()
        named = {name for block in self.blocks for name in _PLACEHOLDER.findall(block) if name in EXAMPLE_FIELDS}
        return frozenset(named if self.use_reference else named - {"reference_answer"})

    def render(self, example: JudgeExample, grid: ScoreGrid) -> PromptText:
        """The prompt of an example.

        Raises:
            DataError: if the example lacks what the prompt needs, or its finished prompt does not ask for the cue.
        """
        grid_values = {"lowest": grid.labels[0], "highest": grid.labels[-1], "scores": ", ".join(grid.labels), "cue": self.cue.strip()}
        system = _PLACEHOLDER.sub(lambda match: grid_values[match[1]], self.system)
        parts = self._reworded(self._finished(example)) if self.source == "finished" else self._filled(example, grid_values)
        prompt = PromptText(system, parts)
        # What the response says does not count.
        wording = "".join(part.text for part in parts if part.field is None)
        if self.require_cue_in_prompt and self.cue.strip() not in system + wording:
            raise DataError(
                f"{example.id}: its prompt does not ask for the answer cue {self.cue.strip()!r} that is trained; set prompt.cue to "
                "what the prompt asks for, use prompt=rubric, or set prompt.require_cue_in_prompt=false"
            )
        return prompt

    def _reworded(self, parts: tuple[PromptPart, ...]) -> tuple[PromptPart, ...]:
        """The parts with the cue in place of the mark that the wording asks for, where it does: before anything that the prompt shows."""
        if not self.reword_output_format:
            return parts
        return parts if parts[0].field else (replace(parts[0], text=asking_for_cue(parts[0].text, self.cue)), *parts[1:])

    def _filled(self, example: JudgeExample, grid_values: dict[str, str]) -> tuple[PromptPart, ...]:
        # An empty response is one that can be judged; a source without separate fields has no instruction either.
        if not example.instruction:
            do = "use prompt=finished, or evaluation.prompt=finished for a judge that was trained"
            raise DataError(f"{example.id}: has no separate instruction and response to fill the template with; {do}")
        values = self._values(example, grid_values)
        parts: list[PromptPart] = []
        for block in self.blocks:
            pieces = _PLACEHOLDER.split(block)  # wording, name, wording, name, ..., wording
            if any(values[name] is None for name in pieces[1::2] if name in values):
                continue
            parts.append(PromptPart("\n\n" if parts else ""))
            for k, piece in enumerate(pieces):
                if k % 2 == 0:
                    parts.append(PromptPart(piece))
                elif piece in grid_values:
                    parts.append(PromptPart(grid_values[piece]))
                else:
                    parts.append(PromptPart(values[piece] or "", field=piece))
        if not any(part.field == "response" for part in parts):
            raise DataError(
                f"{example.id}: the prompt would not show the response, because its block also holds a field that the example lacks; "
                "give {response} a block of its own in prompt.blocks"
            )
        return tuple(part for part in parts if part.text)

    def _values(self, example: JudgeExample, grid_values: dict[str, str]) -> dict[str, str | None]:
        """Field -> text to show, or None where the example lacks it."""
        rubric = example.rubric
        shown: dict[str, str | None] = {
            "instruction": example.instruction,
            "response": example.response,
            "reference_answer": (example.reference_answer or None) if self.use_reference else None,
            "criteria": (rubric.criteria or None) if rubric else None,
        }
        descriptions = rubric.descriptions if rubric else ()
        if self.escape_headings:
            headings = [*self._headings(grid_values), *(f"Score {label}:" for label, _ in descriptions)]
            shown = {field: None if text is None else escape_headings(text, headings) for field, text in shown.items()}
            descriptions = tuple((label, escape_headings(text, headings)) for label, text in descriptions)
        if not any(text.strip() for _, text in descriptions):  # of a rubric that only says its scores
            descriptions = ()
        shown["score_descriptions"] = "\n".join(f"Score {label}: {text}" for label, text in descriptions) or None
        # Both in one piece, as in the Prometheus layout.
        criteria = None if shown["criteria"] is None else f"[{shown['criteria']}]"
        shown["rubric"] = "\n".join(text for text in (criteria, shown["score_descriptions"]) if text) or None
        return shown

    def _headings(self, grid_values: dict[str, str]) -> list[str]:
        """The lines of the template's own wording, each up to where it shows a field."""
        lines = [line for block in self.blocks for line in block.splitlines()]
        filled = [_PLACEHOLDER.sub(lambda match: grid_values.get(match[1], match[0]), line) for line in lines]
        return [_PLACEHOLDER.split(line)[0] for line in filled]

    def _finished(self, example: JudgeExample) -> tuple[PromptPart, ...]:
        if not example.prompt:
            raise DataError(f"{example.id}: has no finished prompt; use prompt=rubric, which fills a template")
        parts = [PromptPart(example.prompt)]
        # A field that stands in the prompt once can be shortened there.
        for field, text in (("response", example.response), ("reference_answer", example.reference_answer)):
            if not text or example.prompt.count(text) != 1:
                continue
            for k, part in enumerate(parts):
                if part.field is None and text in part.text:
                    before, after = part.text.split(text)
                    parts[k : k + 1] = [piece for piece in (PromptPart(before), PromptPart(text, field), PromptPart(after)) if piece.text]
                    break
        if not self.escape_headings:
            return tuple(parts)
        headings = [line for part in parts if part.field is None for line in _HEADING_LINE.findall(part.text)]
        return tuple(replace(part, text=escape_headings(part.text, headings)) if part.field else part for part in parts)
