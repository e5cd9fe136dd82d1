"""The Python API: what is graded, alone or among others, by whichever way, gives the same grade."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import hashlib
import json
import shutil
import threading
import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RemoteEntryNotFoundError, RepositoryNotFoundError
from talking import CUE, TALKING

from tract import Grade, GradeRequest, Judge, Rubric
from tract.artifacts import exported_judge
from tract.artifacts.standalone_judges import hosted_judge, open_judge_files
from tract.common.errors import ConfigError, DataError, GenerationError
from tract.evaluation.calibration import Calibration
from tract.inference.hf.judge import HFJudge
from tract.inference.hf.live import LiveCache
from tract.inference.judgement import Prompt
from tract.judge.grades import ERROR, NO_CUE, OK, OVER_LENGTH, TRUNCATED_COT


def close(found: Grade, expected: Grade, atol: float = 1e-4) -> None:
    assert found.score == pytest.approx(expected.score, abs=atol)
    assert found.distribution == pytest.approx(expected.distribution, abs=atol)
    assert (found.status, found.feedbacks, found.id) == (expected.status, expected.feedbacks, expected.id)


def drawn_as(ids: Sequence[int]) -> str:
    """What the draws of a prompt belong to."""
    return hashlib.sha256(repr(list(ids)).encode()).hexdigest()[:16]


@pytest.fixture(scope="module")
def alone(judge: Judge, requests: Sequence[GradeRequest]) -> list[Grade]:
    """Each request by itself."""
    return [judge.submit(request).result() for request in requests]


def test_a_grade_says_what_the_model_says(judge: Judge, requests: Sequence[GradeRequest], alone: Sequence[Grade]) -> None:
    """The same numbers as the stages' backend gives for the same token ids."""
    layout, settings = judge._files.layout, judge.settings
    model = judge._worker._model  # type: ignore[attr-defined]
    backend = HFJudge(model, layout, settings.sampling, settings.seed, None)
    for request, grade in zip(requests[:3], alone, strict=False):
        ids = layout.prompt_ids(settings.prompt.render(request.example(), layout.grid))
        found = backend.judge([Prompt(drawn_as(ids), 0, ids)], 2, rows=4, without_cot=False, free=False)
        expected = [sum(v * p for v, p in zip(layout.grid.values, j.probabilities, strict=True)) for j in found]
        assert [cot.score for cot in grade.cots] == pytest.approx(expected, abs=1e-5)
        assert grade.score == pytest.approx(sum(expected) / 2, abs=1e-5)
        assert grade.feedbacks == tuple(j.cot for j in found)
        assert all(cot.feedback == "" or CUE.strip() not in cot.feedback for cot in grade.cots)


def test_statuses_of_cots_occur_and_scores_go_with_them(alone: Sequence[Grade]) -> None:
    seen = Counter(cot.status for grade in alone for cot in grade.cots)
    assert set(seen) <= {OK, NO_CUE, TRUNCATED_COT}
    assert seen[OK] >= 3
    assert seen[TRUNCATED_COT] >= 1
    for grade in alone:
        assert grade.interval is not None
        assert grade.interval[0] <= grade.interval[1]
        assert grade.score_mass == pytest.approx(sum(grade.distribution.values()))


def test_batch_stream_threads_and_tasks_give_the_grades_of_each_alone(
    judge: Judge, requests: Sequence[GradeRequest], alone: Sequence[Grade]
) -> None:
    batch = judge.grade_batch(requests, progress=False)
    mappings = ({"instruction": r.instruction, "response": r.response} for r in requests)
    stream = list(judge.grade_stream(mappings, ahead=3))

    async def tasks() -> list[Grade]:
        return list(await asyncio.gather(*(judge.agrade(r.instruction, r.response) for r in requests)))

    threads: list[Any] = [None] * len(requests)

    def grade(place: int) -> None:
        threads[place] = judge.grade(requests[place].instruction, requests[place].response)

    running = [threading.Thread(target=grade, args=(place,)) for place in range(len(requests))]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    for found in (batch, stream, asyncio.run(tasks()), threads):
        for one, expected in zip(found, alone, strict=True):
            close(one, expected)
    assert judge.pending == 0


def test_inside_a_loop_that_runs_it_grades_without_one_of_its_own(
    judge: Judge, requests: Sequence[GradeRequest], alone: Sequence[Grade]
) -> None:
    """As in a notebook, whose cells run inside one: a plain call waits, also in a thread of the loop's."""

    async def cell() -> list[Grade]:
        first = judge.grade(requests[0].instruction, requests[0].response)
        second = await asyncio.to_thread(judge.grade, requests[1].instruction, requests[1].response)
        return [first, second, *judge.grade_batch(requests[2:3], progress=False)]

    for one, expected in zip(asyncio.run(cell()), alone[:3], strict=True):
        close(one, expected)


def test_a_bar_changes_nothing(
    judge: Judge, requests: Sequence[GradeRequest], alone: Sequence[Grade], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes stderr for a terminal
    for one, expected in zip(judge.grade_batch(requests[:2], progress=True), alone[:2], strict=True):
        close(one, expected)


def test_a_stream_is_read_no_further_than_it_is_graded(judge: Judge, requests: Sequence[GradeRequest]) -> None:
    taken = 0

    def endless() -> Iterator[GradeRequest]:
        nonlocal taken
        while True:
            taken += 1
            yield requests[taken % len(requests)]

    stream = judge.grade_stream(endless(), ahead=4)
    for count in range(1, 6):
        next(stream)
        assert taken <= count + 4
    stream.close()  # type: ignore[attr-defined]


def test_requests_with_other_counts_and_grids_are_judged_together(talking_folder: str) -> None:
    with Judge.from_pretrained(talking_folder, **TALKING) as judge:
        wide = Rubric("Is it good?", {1: "no", 5: "so", 10: "yes"})
        asked = [(1, None), (3, wide), (2, None), (1, wide), (1, None)]
        futures = [judge.submit(GradeRequest("Name a colour.", "Blue.", rubric, n_cot=count)) for count, rubric in asked]
        grades = [future.result() for future in futures]
    assert [len(grade.cots) for grade in grades] == [1, 3, 2, 1, 1]
    assert [tuple(grade.distribution) for grade in grades[:2]] == [("1", "2", "3", "4", "5"), ("1", "5", "10")]
    close(dataclasses.replace(grades[4], id=""), dataclasses.replace(grades[0], id=""))


def test_any_number_of_grids_takes_no_more_memory(talking_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tract.judge.readouts.MOST_READINGS", 3)
    with Judge.from_pretrained(talking_folder, **{**TALKING, "max_cot_tokens": 4}) as judge:
        for high in range(2, 9):
            found = judge.grade("Name a colour.", "Blue.", Rubric("Is it good?", {1: "no", high: "yes"}))
            assert tuple(found.distribution) == ("1", str(high))
        gc.collect()
        assert len(judge._readouts._kept) == 3
        assert len(judge._worker._judges) <= 4  # type: ignore[attr-defined]


def test_a_trained_grid_is_not_left_unless_it_is_asked_for(talking_folder: str) -> None:
    with Judge.from_pretrained(talking_folder, grid=["1", "2", "3", "4", "5"], **TALKING) as judge:
        found = judge.grade("Name a colour.", "Blue.", Rubric("Is it good?", {0: "no", 1: "yes"}))
    assert (found.status, found.score) == (ERROR, None)
    assert "the score 0 is not one that this judge was trained to give (1, 2, 3, 4, 5)" in str(found.error)


def test_what_does_not_fit_is_refused_or_shortened(talking_folder: str) -> None:
    long = "word " * 600
    small = {**TALKING, "max_length": 400}
    with Judge.from_pretrained(talking_folder, **small) as judge:
        refused = judge.grade("Say it.", long)
    with Judge.from_pretrained(talking_folder, **small, overlong="shorten") as judge:
        cut = judge.grade("Say it.", long)
    assert (refused.status, refused.score, refused.distribution) == (OVER_LENGTH, None, {})
    assert "max_length: the prompt has" in str(refused.error)
    assert cut.score is not None
    assert cut.shortened


def test_a_stream_counts_what_cannot_be_used(judge: Judge) -> None:
    bad: list[Any] = [
        {"instruction": "a", "response": "b", "id": "x"},
        {"instruction": "a", "id": "y"},
        {"instruction": "a", "response": [3]},
        {"instruction": "a", "response": "half \ud800"},
        {"instruction": "a", "response": "b", "rubrik": "c"},
        "text",
    ]
    grades = judge.grade_batch(bad, progress=False)
    assert [grade.status == ERROR for grade in grades] == [False, True, True, True, True, True]
    assert [grade.id for grade in grades[:2]] == ["x", "y"]
    assert all(grade.score is None for grade in grades[1:])
    reasons = [
        "response: is missing",
        "response: found [3]; text",
        "response: not valid Unicode",
        "rubrik: unknown",
        "request: found a str",
    ]
    for grade, reason in zip(grades[1:], reasons, strict=True):
        assert reason in str(grade.error)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"instruction": " ", "response": "b"}, "instruction: is blank"),
        ({"instruction": "a", "response": None}, "response: holds no value"),
        ({"instruction": "a", "response": "b", "n_cot": 0}, "n_cot: found 0"),
        ({"instruction": "a", "response": "b", "rubric": 3}, "rubric: found a int"),
        ({"instruction": "a", "response": "b", "rubric": Rubric(" ")}, "rubric.criteria: is blank"),
        ({"instruction": "a", "response": "b", "rubric": Rubric("c", [("high", "x")])}, "'high' is no score"),
        ({"instruction": "a", "response": "b", "rubric": Rubric("c", [("2", "x"), ("1", "y")])}, "the scores 2, 1 do not ascend"),
    ],
)
def test_a_call_with_what_is_none_raises(judge: Judge, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        judge.grade(**arguments)


def test_one_that_fails_does_not_take_others_with_it(
    judge: Judge, requests: Sequence[GradeRequest], alone: Sequence[Grade], monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, settings = judge._files.layout, judge.settings
    bad = drawn_as(layout.prompt_ids(settings.prompt.render(requests[2].example(), layout.grid)))
    begin = HFJudge._begin

    def failing(self: HFJudge, prompts: Sequence[Prompt], *arguments: Any) -> Any:
        if any(prompt.id == bad for prompt in prompts):
            raise GenerationError(f"generation: {bad}: the logits are not finite")
        return begin(self, prompts, *arguments)

    monkeypatch.setattr(HFJudge, "_begin", failing)
    found = judge.grade_batch(requests, progress=False)
    assert (found[2].status, found[2].score) == (ERROR, None)
    assert "not finite" in str(found[2].error)
    for place in (0, 1, 3, 4, 5, 6, 7):
        close(found[place], alone[place])
    assert judge.pending == 0


def test_the_cache_of_a_failed_batch_is_gone_while_each_is_judged_alone(
    judge: Judge, requests: Sequence[GradeRequest], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else who ran out of memory together would run out of it again, each by itself."""
    alive: weakref.WeakSet[LiveCache] = weakref.WeakSet()
    made, step = LiveCache.__init__, HFJudge._step
    seen: list[int] = []

    def counted(self: LiveCache, *arguments: Any) -> None:
        made(self, *arguments)
        alive.add(self)

    def failing(self: HFJudge, going: Any, *arguments: Any) -> Any:
        if len(going.sequences) > 2:
            raise RuntimeError("out of memory")
        seen.append(len(alive))
        return step(self, going, *arguments)

    monkeypatch.setattr(LiveCache, "__init__", counted)
    monkeypatch.setattr(HFJudge, "_step", failing)
    futures = [judge.submit(request) for request in requests[:3]]
    found = [future.result() for future in futures]
    assert all(grade.score is not None for grade in found)
    assert max(seen) == 1


def test_what_the_prompt_has_no_place_for_is_said_and_moves_nothing(
    judge: Judge, requests: Sequence[GradeRequest], alone: Sequence[Grade], caplog: pytest.LogCaptureFixture
) -> None:
    request = requests[0]
    found = judge.grade(request.instruction, request.response, Rubric("Is it good?"), "The answer.")
    close(dataclasses.replace(found, id=""), dataclasses.replace(alone[0], id=""), atol=1e-5)
    assert (found.ignored, alone[0].ignored) == (("rubric", "reference_answer"), ())
    judge.grade(request.instruction, request.response, Rubric("Is it bad?"))
    assert caplog.text.count("has no place for a rubric") <= 1


def test_a_calibration_is_not_applied_to_other_scores(talking_folder: str, tmp_path: Path) -> None:
    with Judge.from_pretrained(talking_folder, **TALKING) as judge:
        settings = judge.settings
    folder = shutil.copytree(talking_folder, tmp_path / "judge")
    dataclasses.replace(settings, fixed_grid=True, calibration=Calibration("temperature", 2.0, (), (), {})).write(folder)
    with Judge.from_pretrained(folder, calibrated=True) as judge:
        assert judge.grade("a", "b").calibrated
    for name, other in (("predictor", "argmax"), ("grid", [0, 10]), ("prompt", {"blocks": ["{response} [RESULT]"]})):
        with pytest.raises(ConfigError, match=f"was fitted with its own {name}, another than"):
            Judge.from_pretrained(folder, calibrated=True, **{name: other})  # type: ignore[arg-type]


def test_a_model_card_and_a_calibration_that_is_not_applied_are_no_other_judge(talking_folder: str, tmp_path: Path) -> None:
    folder = shutil.copytree(talking_folder, tmp_path / "judge")
    before = open_judge_files(folder, **TALKING)
    (folder / "README.md").write_text("a card", encoding="utf-8")
    assert open_judge_files(folder, **TALKING).fingerprint == before.fingerprint
    assert open_judge_files(folder, **{**TALKING, "seed": 1}).fingerprint != before.fingerprint
    first, second = (hosted_judge(name).fingerprint for name in ("model-a", "model-b"))
    assert first != second


def test_a_judge_of_finished_prompts_is_given_them(talking_folder: str) -> None:
    finished = {"source": "finished", "blocks": [], "cue": CUE, "system": "", "require_cue_in_prompt": False}
    with Judge.from_pretrained(talking_folder, **{**TALKING, "prompt": finished}) as judge:
        found, other, none = judge.grade_batch(
            [
                {"instruction": "a", "response": "b", "prompt": "Judge this: b", "rubric": "c"},
                {"instruction": "a", "response": "b", "prompt": "Judge that: b"},
                {"instruction": "a", "response": "b"},
            ],
            progress=False,
        )
    assert found.score is not None
    assert found.ignored == ()  # the prompt holds whatever there is
    assert found.distribution != other.distribution
    assert (none.status, none.score) == ("error", None)
    assert "has no finished prompt" in str(none.error)


def test_a_chat_template_gets_its_variables(talking_folder: str, tmp_path: Path) -> None:
    folder = shutil.copytree(talking_folder, tmp_path / "thinking")
    template = folder / "chat_template.jinja"
    template.write_text("{% if not thinking %}<no thoughts>{% endif %}" + template.read_text(encoding="utf-8"), encoding="utf-8")
    shown = [open_judge_files(folder, chat_template_kwargs={"thinking": flag}).layout.scaffold.before for flag in (False, True)]
    assert ["<no thoughts>" in before for before in shown] == [True, False]


def test_a_longer_default_than_the_model_is_made_for_is_cut(talking_folder: str, tmp_path: Path) -> None:
    folder = shutil.copytree(talking_folder, tmp_path / "short")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 700}), encoding="utf-8")
    assert open_judge_files(folder).settings.max_length == 700


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (RemoteEntryNotFoundError, "chat"),
        (LocalEntryNotFoundError, "warning"),
        (RepositoryNotFoundError, "cannot look up judge_config.json of 'me/judge' on the hub"),
        (HfHubHTTPError, "cannot look up judge_config.json of 'me/judge' on the hub"),
    ],
)
def test_only_a_hub_without_settings_makes_a_chat_model(
    error: type[Exception], found: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any, **__: Any) -> str:
        if error is LocalEntryNotFoundError:
            raise error("not in the cache")
        response = httpx.Response(404, request=httpx.Request("GET", "https://hub.invalid"))
        raise error("404", response=response)  # type: ignore[call-arg]

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    if found in ("chat", "warning"):
        assert exported_judge._from_hub("me/judge", None) is None
        assert ("cannot be looked up" in caplog.text) == (found == "warning")
    else:
        with pytest.raises(ConfigError, match=found):
            exported_judge._from_hub("me/judge", None)


def test_what_is_cancelled_while_it_waits_is_dropped(judge: Judge, requests: Sequence[GradeRequest], alone: Sequence[Grade]) -> None:
    held = threading.Event()
    lock = judge._worker._lock  # type: ignore[attr-defined]
    with lock:  # nothing begins meanwhile
        futures: list[Any] = []
        thread = threading.Thread(target=lambda: futures.extend(judge.submit(request) for request in requests[:1]))
        thread.start()
        held.wait(0.05)
    thread.join()
    waiting = [judge.submit(request) for request in requests]
    cancelled = waiting[-1].cancel()
    close(waiting[0].result(), alone[0])
    futures[0].result()
    assert cancelled
    assert waiting[-1].cancelled()


def test_a_closed_judge_says_so(talking_folder: str) -> None:
    judge = Judge.from_pretrained(talking_folder, **TALKING)
    judge.close()
    with pytest.raises(GenerationError, match="the judge is closed"):
        judge.grade("a", "b")


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ("./nowhere", {}, "there is no folder './nowhere'"),
        ("talking", {"backend": "tpu"}, "backend: 'tpu' is not one of auto, hf, vllm, openai"),
        ("talking", {"calibrated": True}, "calibrated: the judge .* has no calibration"),
        ("talking", {"predictor": "guess"}, "predictor: 'guess' is not one of"),
        ("talking", {"tempreature": 1}, "tempreature: unknown option of a judge; accepted are"),
        ("talking", {"temperature": -1.0}, "temperature: -1.0"),
        ("talking", {"grid": ["3", "2"]}, "do not ascend"),
        ("talking", {"device": "warp"}, "device: 'warp' cannot be used here"),
        ("talking", {"backend": "openai"}, "base_url: backend='openai' needs the address"),
        ("talking", {"prompt": "no.yaml"}, "prompt: cannot read 'no.yaml'"),
        ("talking", {"prompt": 5}, "prompt: found a int"),
        ("talking", {"grid": 3}, "grid: found 3; a list of scores"),
        ("talking", {"temperature": "hot"}, "temperature: 'hot' is not a number"),
        ("talking", {"max_cot_tokens": 1.5}, "max_cot_tokens: 1.5 is not a whole number"),
        ("talking", {"max_length": "x"}, "max_length: 'x' is not a whole number >= 1"),
        ("talking", {"max_length": 10**6}, "max_length: 1000000 tokens are more than .* is made for"),
        ("talking", {"least_score_mass": "x"}, "least_score_mass: 'x' is not a number in"),
        ("talking", {"seed": "x"}, "seed: 'x' is not a whole number"),
        ("talking", {"dtype": "foo"}, "dtype: 'foo' is not one of float32, bfloat16, float16"),
        ("talking", {"prompt": {"blocks": ["{nothing}"]}}, "unknown placeholder"),
        ("package:no_such_package", {}, "'no_such_package' is not installed"),
    ],
)
def test_what_cannot_be_loaded_is_one_line(talking_folder: str, spec: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        Judge.from_pretrained(talking_folder if spec == "talking" else spec, **options)
    assert "\n" not in str(error.value)


def test_a_chat_model_is_asked_in_the_prometheus_form(talking_folder: str) -> None:
    with Judge.from_pretrained(talking_folder, max_cot_tokens=20) as judge:
        prompt = judge.settings.prompt.render(
            GradeRequest("What is 1+1?", "2", Rubric("Is it right?", {1: "no", 5: "yes"}), "Two").example(), judge.grid
        )
        grade = judge.grade("What is 1+1?", "2", "Is it right?")
    assert judge.settings.prompt.cue == " [RESULT] "
    assert "###Score Rubrics:\n[Is it right?]\nScore 1: no\nScore 5: yes\n\n###Feedback: " in prompt.user
    assert "###Reference Answer (Score 5):\nTwo\n\n" in prompt.user
    # It knows nothing of [RESULT]: hardly any probability is on the grid, and that is no score.
    assert grade.status in ("low_score_mass", "truncated_cot", "no_cue")


def test_a_template_of_prometheus_eval_is_taken_as_it_is(talking_folder: str) -> None:
    sections = ["###Task:\nJudge. [RESULT]", "###Q:\n{instruction}", "###R:\n{response}", "###Ref:\n{reference_answer}", "{rubric}"]
    text = "\n\n".join(sections)
    request = GradeRequest("Why?", "So.", "[Is it kind?]\nScore 1: no\nScore 2: yes", "Thus.")
    with Judge.from_pretrained(talking_folder, prompt=text) as judge:
        rendered = judge.settings.prompt.render(request.example(), judge.grid)
    filled = text.format(instruction="Why?", response="So.", reference_answer="Thus.", rubric="[Is it kind?]\nScore 1: no\nScore 2: yes")
    assert rendered.user == filled


def test_names_of_the_package_are_found() -> None:
    import tract

    assert {name: getattr(tract, name).__name__ for name in tract.__all__ if name != "__version__"} == {
        name: name for name in tract.__all__ if name != "__version__"
    }
    with pytest.raises(AttributeError, match="no attribute 'Jury'"):
        _ = tract.Jury


@pytest.mark.parametrize("null", [None, float("nan"), np.float32("nan"), pd.NA, pd.NaT, "", " "], ids=repr)
def test_fields_without_a_value_are_none(null: Any) -> None:
    given = GradeRequest.of({"instruction": "a", "response": "b", "reference_answer": null, "id": null, "prompt": null})
    assert given == GradeRequest("a", "b")
    assert (given.reference_answer, given.id, given.prompt) == (None, None, None)


@pytest.mark.parametrize("null", [None, float("nan"), pd.NA])
def test_null_numbers_of_cots_and_rubrics_are_none(null: Any) -> None:
    assert GradeRequest.of({"instruction": "a", "response": "b", "n_cot": null, "rubric": null}) == GradeRequest("a", "b")


def test_rows_of_pandas_are_requests() -> None:
    rows = {"instruction": ["6*7?", "Is it?"], "response": [42, True], "reference_answer": [np.nan, 3.5], "id": [7, None]}
    first, second = (GradeRequest.of(row) for row in pd.DataFrame(rows).to_dict("records"))
    assert first == GradeRequest("6*7?", "42", id="7")
    assert second == GradeRequest("Is it?", "true", reference_answer="3.5")
    assert GradeRequest("a", "b", id=np.int64(7)).id == "7"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"instruction": "a", "response": float("nan")}, r"^response: holds no value \(null or NaN\); text is needed here"),
        ({"instruction": pd.NA, "response": "b"}, r"^instruction: holds no value \(null or NaN\); text is needed here"),
        (
            {"instruction": "a", "response": ["b"]},
            r"^response: found \['b'\]; text is accepted, or a number, true or false, which become text$",
        ),
        ({"instruction": "a", "response": {"b": 1}}, r"^response: found \{'b': 1\}; text is accepted"),
        ({"instruction": "a", "response": "b", "id": True}, r"^id: found True; an id as text or as a whole number"),
        ({"instruction": "a", "response": "b", "id": 7.5}, r"^id: found 7\.5; an id as text or as a whole number"),
    ],
)
def test_fields_that_cannot_be_used_are_one_line(content: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        GradeRequest.of(content)


def test_an_item_that_fails_keeps_the_id_that_it_was_given(judge: Judge) -> None:
    bad: list[Any] = [{"instruction": "a", "response": None, "id": number} for number in (7, 7.0, None, float("nan"))]
    assert [grade.id for grade in judge.grade_batch(bad, progress=False)] == ["7", "7", "", ""]


@pytest.mark.parametrize("blank", ["", "  \n", float("nan")])
def test_a_blank_rubric_is_none_as_in_a_file(blank: Any) -> None:
    expected = GradeRequest("a", "b")
    assert GradeRequest("a", "b", blank) == GradeRequest.of({"instruction": "a", "response": "b", "rubric": blank}) == expected


def test_a_whole_number_of_numpy_is_a_number_of_cots() -> None:
    found = GradeRequest("a", "b", n_cot=np.int64(3)).n_cot  # type: ignore[arg-type]
    assert (found, type(found)) == (3, int)
    for wrong in (np.int64(0), np.float64(3.0), np.True_, True, "3"):
        with pytest.raises(DataError, match="n_cot: found .*; a whole number from 1 to 1024 is accepted"):
            GradeRequest("a", "b", n_cot=wrong)  # type: ignore[arg-type]
