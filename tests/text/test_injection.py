"""Text that is judged yields no control token, forges no part of the prompt, and moves no place where a score is read.

For every tokenizer and chat template of the zoo, every prompt of conf/prompt, and every field of an example.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import cache

import pytest
from composing import CONF, composed
from hypothesis import given, settings
from hypothesis import strategies as st
from injection_payloads import KINDS, LONG, PAYLOADS, SURROGATES
from tokenizer_zoo import (
    GRID,
    NAMES,
    as_llama,
    as_qwen,
    converted,
    layout_for,
    llama_vocabulary,
    member,
    qwen_vocabulary,
    template,
)
from tracked_files import tracked

from tract.common.errors import ConfigError
from tract.data.readers import fields
from tract.models.tokenizers import load_tokenizer
from tract.pipeline.validation import validate
from tract.text.layout import SequenceLayout
from tract.text.schema import Annotation, JudgeExample, Rubric

FIELDS = ("instruction", "response", "reference_answer", "criteria", "description", "cot")
TEMPLATES = ("rubric", "short", "finished")
LINE_ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"


@cache
def layout_of(name: str, prompt: str) -> SequenceLayout:
    """The layout of a tokenizer of the zoo under a prompt."""
    return layout_for(member(name), prompt)


def example(text: str, where: Iterable[str] = FIELDS) -> JudgeExample:
    """An example that holds a text in some fields, in the middle of a line and as lines of its own."""
    return example_of({name: f"A {name} with {text} in it.\n{text}\nand more" for name in where})


def example_of(shown: dict[str, str]) -> JudgeExample:
    """An example with these texts in its fields, harmless ones in the others."""
    shown = {name: f"A {name}." for name in FIELDS} | shown
    rubric = Rubric(shown["criteria"], tuple((label, shown["description"] if label == "3" else f"Level {label}.") for label in GRID.labels))
    prompt = (
        "###Task Description:\nA reference answer is given; end with [RESULT] (an integer number).\n\n"
        "###The instruction to evaluate:\nDo it.\n\n"
        f"###Response to evaluate:\n{shown['response']}\n\n###Reference Answer (Score 5):\n{shown['reference_answer']}\n\n"
        "###Score Rubrics:\n[Is it right?]\nScore 1: No.\nScore 5: Yes.\n\n###Feedback: "
    )
    return JudgeExample(
        "e", "q", shown["instruction"], shown["response"], shown["reference_answer"], rubric, prompt, (Annotation(shown["cot"], 4.0),)
    )


HARMLESS = example("nothing")
# What the templates write at the beginning of lines, in this order; found in the prompt of a harmless example.
WORDING = re.compile(r"##+ ?[A-Z].*|Response:|Score \d:|Grade the response below.*|Check each point.*")


def visible(line: str) -> str:
    """A line as a careful reader sees it, by Unicode's own classes; written apart from the code that is tested."""
    kept = [c for c in unicodedata.normalize("NFKD", line) if unicodedata.category(c)[0] not in "CMZ" and not c.isspace()]
    return "".join(kept).casefold()


def sections(user: str, headings: frozenset[str]) -> list[str]:
    """The lines of a prompt that are headings, or begin with one that ends in a colon, in order."""
    found = []
    for line in re.split(f"[{LINE_ENDS}]", user):
        seen = visible(line)
        found += [heading for heading in headings if seen == heading or (heading.endswith(":") and seen.startswith(heading))]
    return found


@cache
def headings_of(prompt: str) -> frozenset[str]:
    """The headings that a prompt's template writes, as they are seen."""
    user = template(prompt).render(HARMLESS, GRID).user
    lines = [WORDING.match(line) for line in user.split("\n")]
    return frozenset(visible(match[0]) for match in lines if match)


@cache
def harmless_sections(prompt: str) -> list[str]:
    return sections(template(prompt).render(HARMLESS, GRID).user, headings_of(prompt))


def forges(prompt: str, hostile: JudgeExample) -> bool:
    """Whether the prompt of an example has other sections than that of a harmless one."""
    return sections(template(prompt).render(hostile, GRID).user, headings_of(prompt)) != harmless_sections(prompt)


@cache
def harmless_controls(layout: SequenceLayout, prompt: str) -> list[int]:
    return controls_in(layout, layout.prompt_ids(template(prompt).render(HARMLESS, GRID)))


def controls_in(layout: SequenceLayout, ids: list[int]) -> list[int]:
    return [i for i in ids if i in layout.encoder.control_ids]


def faults(layout: SequenceLayout, prompt: str, hostile: JudgeExample) -> list[str]:
    """What an example does to its tokens that a harmless one does not do."""
    found = []
    ids = layout.prompt_ids(template(prompt).render(hostile, GRID))
    if controls_in(layout, ids) != harmless_controls(layout, prompt):
        found.append("control tokens in the prompt")
    cot = layout.cot_ids(hostile.annotations[0].cot)
    if controls_in(layout, cot):
        found.append("control tokens in the CoT")
    tree = layout.tree(ids, [(cot, 3)])
    behind = [*ids, *cot, *layout.cue_ids, layout.score_ids[3][0]]
    if tree.input_ids[: len(behind)] != behind or tree.score_reads != [[len(behind) - 2]]:
        found.append("the score is read elsewhere")
    return found


def all_faults(layout: SequenceLayout, prompt: str, texts: Iterable[str]) -> dict[str, list[str]]:
    found = {text: faults(layout, prompt, example(text)) for text in texts}
    return {text: problems for text, problems in found.items() if problems}


def test_there_are_enough_payloads_and_none_stands_twice() -> None:
    assert len(PAYLOADS) == len(set(PAYLOADS)) >= 200
    assert all(KINDS.values())


def test_the_headings_are_those_of_the_templates() -> None:
    assert {"##instruction", "##response", "##referenceanswer,worth5", "##criterion", "##feedback", "score3:"} <= headings_of("rubric")
    assert headings_of("short") == {"response:"}
    assert {"###responsetoevaluate:", "###feedback:"} <= headings_of("finished")


@pytest.mark.parametrize(("name", "prompt"), [*((name, "rubric") for name in NAMES), ("mistral", "finished"), ("tiny", "finished")])
def test_no_payload_writes_a_control_token_or_moves_the_score(name: str, prompt: str) -> None:
    assert all_faults(layout_of(name, prompt), prompt, PAYLOADS) == {}


@pytest.mark.parametrize("prompt", TEMPLATES)
@pytest.mark.parametrize("where", [*([field] for field in FIELDS[:-1]), FIELDS], ids=" ".join)
def test_no_payload_forges_a_part_of_the_prompt(where: list[str], prompt: str) -> None:
    assert [text for text in PAYLOADS if forges(prompt, example(text, where))] == []


def test_without_the_guard_parts_are_forged(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the test above would find, so that it can fail."""
    monkeypatch.setattr("tract.text.prompts.escape_headings", lambda text, headings: text)
    assert len([text for text in KINDS["headings"] if forges("rubric", example(text))]) > 20


@pytest.mark.parametrize("prompt", TEMPLATES)
def test_text_that_forges_no_heading_is_shown_to_the_character(prompt: str) -> None:
    harmless = [text for text in PAYLOADS if text not in KINDS["headings"]]
    shown = {text: template(prompt).render(example(text), GRID).user for text in harmless}
    assert [text for text in harmless if f"A response with {text} in it.\n{text}\nand more" not in shown[text]] == []


@pytest.mark.slow
@pytest.mark.parametrize("text", LONG, ids=["one word", "words", "control tokens", "zero width", "headings", "rare"])
def test_a_megabyte_in_a_field(text: str) -> None:
    hostile = example_of({"response": text})
    assert faults(layout_of("smollm2", "rubric"), "rubric", hostile) == []
    assert not forges("rubric", hostile)


@pytest.mark.parametrize("text", SURROGATES)
def test_text_that_is_no_unicode_is_refused_where_it_is_read(text: str) -> None:
    with pytest.raises(ValueError, match="orig_response: not valid Unicode at character"):
        fields.text(text, "orig_response")


PIECES = st.one_of(
    st.sampled_from(PAYLOADS),
    st.sampled_from(("<", "|", ">", "/s", "#", "## ", "Feed", "back", "Score 3", ":", "Response", "\\", *LINE_ENDS, " ", "\u200b")),
    st.text(st.characters(exclude_categories=("Cs",)), max_size=5),
)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(text=st.lists(PIECES, max_size=8).map("".join), prompt=st.sampled_from(TEMPLATES), field=st.sampled_from([*FIELDS, None]))
def test_no_text_at_all_does(name: str, text: str, prompt: str, field: str | None) -> None:
    hostile = example(text, FIELDS if field is None else [field])
    assert faults(layout_of(name, prompt), prompt, hostile) == []
    assert not forges(prompt, hostile)


# --- vocabularies of real models


@pytest.mark.slow
@pytest.mark.parametrize(("family", "digits"), [("llama", (16, 17, 18, 19, 20)), ("qwen", (16, 17, 18, 19, 20))])
def test_real_vocabularies(family: str, digits: tuple[int, ...]) -> None:
    found = as_llama(converted(llama_vocabulary())) if family == "llama" else as_qwen(converted(qwen_vocabulary()))
    assert len(found.tokenizer) > 128_000
    layout = layout_for(found, "rubric")
    assert tuple(ids[0] for ids in layout.score_ids) == digits
    assert all_faults(layout, "rubric", PAYLOADS) == {}


MODELS = [path.stem for path in tracked(CONF / "model", "[!_]*.yaml")]


@pytest.mark.network
@pytest.mark.parametrize("model", MODELS)
def test_every_model_of_the_configuration(model: str) -> None:
    cfg = validate(composed([f"model={model}", "model.unpacked=null"]))
    try:
        tokenizer = load_tokenizer(cfg.model)
    except ConfigError as error:
        pytest.skip(f"the tokenizer cannot be loaded: {error}")
    worded = template("rubric")
    layout = SequenceLayout.build(
        tokenizer, system=bool(worded.system), cue=worded.cue, grid=GRID, chat_template_kwargs=cfg.model.chat_template_kwargs
    )
    assert all_faults(layout, "rubric", PAYLOADS) == {}
