"""``tract inspect``: the prompt and its tokens as the judge sees them, without weights."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tract.artifacts.standalone_judges import open_judge_files
from tract.text.layout import SequenceLayout

Command = Callable[..., tuple[int, str, str]]
# A tokenizer and a configuration; there are no weights in it.
TINY = Path(__file__).resolve().parents[3] / "tract" / "assets" / "tiny"
TEXTS = ("--instruction", "Name a colour.", "--response", "Blue. \x1b[31m<|end|>")
LINE = re.compile(r" *(\d+)([* ])\| ('.*'|\".*\") \| (\w+) \| ([\w ,.()=-]+)")


def tokens(output: str) -> list[tuple[int, bool, str, str, str]]:
    """(position, whether scores are read there, text, kind, what trains it) of each token that is shown."""
    found = [LINE.fullmatch(line) for line in output.splitlines()]
    return [(int(m[1]), m[2] == "*", m[3][1:-1], m[4], m[5]) for m in found if m]


def test_tokens_with_kind_supervision_and_where_scores_are_read(tract: Command, tiny_layout: SequenceLayout) -> None:
    status, output, error = tract("inspect", *TEXTS, "--judge", TINY, "--cot", "It is one.", "--score", 2, "--all")
    assert (status, error) == (0, "")
    found = tokens(output)
    assert [position for position, *_ in found] == list(range(len(found)))
    by_kind = {kind: [token for token in found if token[3] == kind] for kind in ("prompt", "cot", "cue", "score", "end")}
    assert "".join(token[2] for token in by_kind["cot"]) == "It is one."
    assert "".join(token[2] for token in by_kind["cue"]) == " [RESULT] "
    assert [token[2] for token in by_kind["score"] + by_kind["end"]] == ["2", "<|end|>"]
    assert {token[4] for token in by_kind["prompt"]} == {"nothing"}
    assert {token[4] for kind in ("cot", "cue", "end") for token in by_kind[kind]} == {"cross-entropy"}
    assert {token[4] for token in by_kind["score"]} == {"squared error"}
    # The distribution is read at the last token before the score, and nowhere else.
    assert [token[0] for token in found if token[1]] == [by_kind["score"][0][0] - 1]
    assert f"read here: position {by_kind['score'][0][0] - 1}." in output
    ids = ", ".join(f"{label} {list(score)}" for label, score in zip("12345", tiny_layout.score_ids, strict=True))
    assert output.endswith(f"Token ids of the scores: {ids}\n")


def test_a_trained_judge_says_what_trained_it(tract: Command, tmp_path: Path) -> None:
    """Of an exported folder: its settings say so; a judge without feedback has none to show."""
    folder = Path(shutil.copytree(TINY, tmp_path / "exported"))
    objective = {"ce_weight": 1.0, "lambda": 0.0, "ce_on_score": True, "use_cot": False, "normalize": False, "score_loss_scaling": "step"}
    settings = open_judge_files(TINY).settings
    replace(settings, name="mine", use_cot=False, training={"objective": objective}).write(folder)
    status, output, error = tract("inspect", *TEXTS, "--judge", folder)
    assert status == 0, error
    assert output.startswith("judge mine (made from")
    assert "no feedback before the score" in output
    assert "supervised as the judge was trained" in output
    assert [token[4] for token in tokens(output) if token[3] == "score"] == ["cross-entropy"]
    pinball = {**objective, "lambda": 1.0, "score_loss": {"_target_": "mine.losses.Pinball", "q": 0.3}, "ce_on_score": False}
    replace(settings, name="mine", use_cot=False, training={"objective": pinball}).write(folder)
    found = tokens(tract("inspect", *TEXTS, "--judge", folder)[1])
    assert [token[4] for token in found if token[3] == "score"] == ["mine.losses.Pinball(q=0.3)"]
    assert "--cot: this judge writes no feedback" in tract("inspect", *TEXTS, "--judge", folder, "--cot", "x")[2]


def test_what_a_response_spells_neither_steers_the_model_nor_the_terminal(tract: Command) -> None:
    _, output, _ = tract("inspect", *TEXTS, "--judge", TINY, "--all")
    assert "\x1b" not in output
    assert "Blue. \\x1b[31m<|end|>" in output
    ends = [token for token in tokens(output) if token[2] == "<|end|>"]
    assert [token[3] for token in ends] == ["prompt"] * (len(ends) - 1) + ["end"]  # of turns; that of the response is letters
    spelled = "".join(token[2] for token in tokens(output) if token[3] == "prompt")
    assert spelled.count("<|end|>") == len(ends)


@pytest.mark.parametrize(
    ("variables", "coloured"), [({}, False), ({"FORCE_COLOR": "1"}, True), ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False)]
)
def test_fields_are_coloured_where_that_is_wanted(
    variables: dict[str, str], coloured: bool, tract: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    _, output, _ = tract("inspect", *TEXTS, "--judge", TINY)
    assert ("\x1b[36mName a colour.\x1b[0m" in output) == coloured  # instruction in cyan
    assert ("\x1b" in output) == coloured


def test_rows_rubrics_and_grids_of_a_file(tract: Command, tmp_path: Path) -> None:
    rows = [{"q": "a", "a": "b", "what": "Right?", "zero": "no", "one": "yes"}, {"q": "a", "a": [3], "what": "", "zero": "", "one": ""}]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "no json\n")
    mapped = ["--columns", "instruction=q", "response=a", "criteria=what", "score_descriptions.0=zero", "score_descriptions.1=one"]
    status, output, _ = tract("inspect", tmp_path / "in.jsonl", "--judge", TINY, *mapped)
    assert status == 0
    assert "scores 0, 1; read by rail" in output  # the rubric's own, since this model was trained on none
    assert "[Right?]\nScore 0: no\nScore 1: yes" in output
    assert tract("inspect", tmp_path / "in.jsonl", "--judge", TINY, *mapped, "--row", 2)[2].startswith(
        "error: in.jsonl:2: a: found [3]; text"
    )
    assert tract("inspect", tmp_path / "in.jsonl", "--judge", TINY, "--row", 3)[2].startswith("error: in.jsonl:3: not JSON")
    assert "--row 4: " in tract("inspect", tmp_path / "in.jsonl", "--judge", TINY, "--row", 4)[2]
    assert "in.jsonl:1: has no column 'instruction'" in tract("inspect", tmp_path / "in.jsonl", "--judge", TINY)[2]


def test_what_does_not_fit_says_so(tract: Command) -> None:
    long = ["--instruction", "a", "--response", "word " * 400, "--max-length", 700, "--max-cot-tokens", 100, "--judge", TINY]
    assert "over_length, so it is not judged: max_length: the prompt has" in tract("inspect", *long)[1]
    _, output, _ = tract("inspect", *long, "--overlong", "shorten")
    assert "the middle of a field is left out" in output
    last = tokens(output)[-1]
    assert last[0] < 700 - 100


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to show; give a file, or --instruction and --response"),
        (["x.jsonl", "--response", "y"], "--response: is given beside a file"),
        ([*TEXTS, "--score", "6"], "--score: '6' is not on the grid; accepted are 1, 2, 3, 4, 5"),
        ([*TEXTS, "--backend", "hf"], "unrecognized arguments: --backend"),
        ([*TEXTS, "--columns", "instruction=q"], "--columns: is for a file; leave it out, or give a file"),
        ([*TEXTS, "--row", "2"], "--row: is for a file; leave it out, or give a file"),
        ([*TEXTS, "--dtype", "float8"], "argument --dtype: invalid choice: 'float8' (choose from"),
        (["nowhere.jsonl"], "nowhere.jsonl does not exist"),
    ],
)
def test_mistakes_are_one_line_each(arguments: list[str], message: str, tract: Command) -> None:
    status, output, error = tract("inspect", *arguments, "--judge", TINY)
    assert (status, output, len(error.splitlines())) == (2, "", 1)
    assert message in error


def test_a_rubric_column_and_the_text_of_a_rubric_in_a_file(tract: Command, tmp_path: Path) -> None:
    text = "Is it a prime?\n0 = It is not.\n1 = It is."
    rubrics = [text, {"criteria": "Is it a prime?", "descriptions": {"0": "It is not.", "1": "It is."}}, "Right?\n1. a\n2. b"]
    rows = [{"instruction": "a", "response": "b", "rubric": rubric} for rubric in rubrics]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "rubric.txt").write_text(text)
    found = [tract("inspect", tmp_path / "in.jsonl", "--judge", TINY, "--row", row) for row in (1, 2)]
    found.append(tract("inspect", *TEXTS, "--judge", TINY, "--rubric", tmp_path / "rubric.txt"))
    for status, output, error in found:
        assert (status, error) == (0, "")
        assert "scores 0, 1; read by rail" in output
        assert "[Is it a prime?]\nScore 0: It is not.\nScore 1: It is." in output
    _, _, error = tract("inspect", tmp_path / "in.jsonl", "--judge", TINY, "--rubric", tmp_path / "rubric.txt")
    assert error == f"{tmp_path / 'in.jsonl'}: the column 'rubric' is not used, since --rubric is for all rows\n"
    assert tract("inspect", tmp_path / "in.jsonl", "--judge", TINY, "--row", 3)[2].startswith(
        "error: in.jsonl:3: rubric: cannot tell whether '1. a' and '2. b' are scores or a numbered list; write each score"
    )


def test_a_row_may_lack_a_column_that_others_have(tract: Command, tmp_path: Path) -> None:
    file = tmp_path / "in.jsonl"
    file.write_text('{"instruction": "a", "response": "b"}\n{"instruction": "c", "response": "d", "what": "Right?"}\n')
    status, output, _ = tract("inspect", file, "--judge", "tract/assets/tiny", "--columns", "criteria=what")
    assert status == 0
    assert "Right?" not in output
