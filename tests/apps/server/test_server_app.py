"""The application: grades, what is malformed, limits, the token, metrics. Without a socket."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import re
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import wraps
from typing import Any

import pytest
from stand_in import BODY, StandIn, client_of, grade_of_length, no_model

from tract.apps.server.app import create_app
from tract.apps.server.bodies import CotOut, GradeOut
from tract.apps.server.settings import ServerSettings
from tract.common.errors import ConfigError, GenerationError
from tract.judge.grades import OVER_LENGTH, STATUSES, CotGrade, Grade, failed
from tract.judge.requests import GradeRequest
from tract.text.schema import Rubric


def looped(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """The test, run in a loop of its own."""

    @wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        asyncio.run(test(*arguments, **named))

    return run


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come about")


def test_an_answer_has_the_fields_of_a_grade() -> None:
    assert [each.name for each in dataclasses.fields(Grade)] == list(GradeOut.model_fields)
    assert [each.name for each in dataclasses.fields(CotGrade)] == list(CotOut.model_fields)


@looped
async def test_a_grade_is_that_of_the_judge() -> None:
    judge = StandIn()
    async with client_of(judge) as client:
        answer = await client.post("/v1/grade", json={**BODY, "id": "mine", "n_cot": 3, "reference_answer": "13"})
    assert answer.status_code == 200
    (request,) = judge.asked
    assert (request.instruction, request.reference_answer, request.id, request.n_cot) == (BODY["instruction"], "13", "mine", 3)
    assert request.rubric is not None
    assert request.rubric.criteria == BODY["rubric"]
    assert answer.json() == json.loads(json.dumps(grade_of_length(request).to_dict()))
    assert GradeOut.model_validate_json(answer.content).id == "mine"


@looped
async def test_a_batch_is_answered_in_its_order_with_counts() -> None:
    def answer(request: GradeRequest) -> Grade:
        return failed(request.shown_id, OVER_LENGTH, "too long") if len(request.response) > 6 else grade_of_length(request)

    async with client_of(StandIn(answer)) as client:
        items = [{**BODY, "response": "x" * n, "id": str(n)} for n in (3, 1, 7, 0)]
        found = (await client.post("/v1/grade/batch", json={"items": items})).json()
        metrics = (await client.get("/metrics")).text
    assert [(grade["id"], grade["score"]) for grade in found["grades"]] == [("3", 4.0), ("1", 2.0), ("7", None), ("0", 1.0)]
    assert found["counts"] == {**dict.fromkeys(STATUSES, 0), "ok": 3, "over_length": 1}
    assert 'tract_grades_total{status="ok"} 3.0' in metrics
    assert 'tract_grades_total{status="over_length"} 1.0' in metrics


@looped
async def test_numbers_are_texts_and_ids() -> None:
    """As in Python and in files: 42 and true are answers as often as "42"."""
    seen: list[GradeRequest] = []

    def answer(request: GradeRequest) -> Grade:
        seen.append(request)
        return grade_of_length(request)

    texts = [42, 3.5, True, False, "x"]
    async with client_of(StandIn(answer)) as client:
        items = [{"instruction": 1, "response": text, "reference_answer": text, "id": n} for n, text in enumerate(texts)]
        found = (await client.post("/v1/grade/batch", json={"items": items})).json()
        blank = {**BODY, "reference_answer": " ", "id": ""}
        assert (await client.post("/v1/grade", json=blank)).json()["id"] == (await client.post("/v1/grade", json=BODY)).json()["id"]
    assert [grade["id"] for grade in found["grades"]] == ["0", "1", "2", "3", "4"]
    assert [(r.instruction, r.response, r.reference_answer) for r in seen[:5]] == [
        ("1", text, text) for text in ("42", "3.5", "true", "false", "x")
    ]
    assert seen[5].reference_answer is None


@looped
async def test_a_model_that_fails_gives_an_error_and_no_number() -> None:
    async with client_of(StandIn(no_model)) as client:
        found = (await client.post("/v1/grade/batch", json={"items": [BODY] * 3})).json()
    assert found["counts"]["error"] == 3
    for grade in found["grades"]:
        assert (grade["status"], grade["error"]) == ("error", "the model gave no finite logits")
        assert [grade[name] for name in ("score", "raw_score", "interval", "standard_error", "score_mass")] == [None] * 5


@looped
async def test_a_future_that_fails_is_an_error_of_its_item_alone_and_shows_no_text() -> None:
    def answer(request: GradeRequest) -> Grade:
        if request.response == "bad":
            raise RuntimeError("private")
        return grade_of_length(request)

    async with client_of(StandIn(answer)) as client:
        answered = await client.post("/v1/grade/batch", json={"items": [BODY, {**BODY, "response": "bad"}]})
    first, second = answered.json()["grades"]
    assert (first["status"], second["status"], second["score"]) == ("ok", "error", None)
    assert "private" not in answered.text


@looped
async def test_nan_is_a_fault_of_the_server_not_a_null(caplog: pytest.LogCaptureFixture) -> None:
    def answer(request: GradeRequest) -> Grade:
        return dataclasses.replace(grade_of_length(request), score=float("nan"))

    async with client_of(StandIn(answer)) as client:
        found = await client.post("/v1/grade", json=BODY)
    assert (found.status_code, found.json()) == (500, {"error": "a fault of the server; its log says where"})
    assert "ValueError" in caplog.text


NESTED = b'{"instruction": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
MALFORMED: list[tuple[str, bytes, int, str]] = [
    ("nothing", b"", 422, "body"),
    ("no JSON", b"{", 422, "body: no JSON"),
    ("no object", b"[1]", 422, "body"),
    ("missing", b'{"instruction": "a"}', 422, "response: Field required"),
    ("unknown key", b'{"instruction": "a", "response": "b", "answer": "c"}', 422, "answer: Extra inputs"),
    ("key that is no text", b'{"instruction": "a", "response": "b", "\\ud800": "c"}', 422, ""),
    ("half a pair", b'{"instruction": "a", "response": "\\ud800"}', 422, "response"),
    ("invalid UTF-8", b'{"instruction": "a", "response": "\xff"}', 422, "body: no JSON that can be read"),
    ("nested", NESTED, 422, "no JSON that can be read"),
    ("NaN", b'{"instruction": "a", "response": NaN}', 422, "response"),
    ("NaN as number", b'{"instruction": "a", "response": "b", "n_cot": NaN}', 422, "n_cot"),
    ("huge number", b'{"instruction": "a", "response": "b", "n_cot": ' + b"9" * 5000 + b"}", 422, ""),
    ("number as text", b'{"instruction": "a", "response": "b", "n_cot": "2"}', 422, "n_cot"),
    ("no CoT", b'{"instruction": "a", "response": "b", "n_cot": 0}', 422, "n_cot"),
    ("too many CoTs", b'{"instruction": "a", "response": "b", "n_cot": 17}', 422, "n_cot: 17 is more than the 16"),
    ("blank", b'{"instruction": " ", "response": "b"}', 422, "instruction: is blank"),
    ("list", b'{"instruction": "a", "response": ["b"]}', 422, "response: Input should be a valid string"),
    ("null", b'{"instruction": "a", "response": null}', 422, "response: Input should be a valid string"),
    ("id that is true", b'{"instruction": "a", "response": "b", "id": true}', 422, "id: Input should be a valid string"),
    ("id that is no whole number", b'{"instruction": "a", "response": "b", "id": 0.5}', 422, "id: Input should be a valid string"),
    ("rubric", b'{"instruction": "a", "response": "b", "rubric": {"descriptions": {}}}', 422, "rubric.criteria: Field required"),
    ("rubric type", b'{"instruction": "a", "response": "b", "rubric": 3}', 422, "rubric: Input should be"),
    ("blank rubric", b'{"instruction": "a", "response": "b", "rubric": {"criteria": ""}}', 422, "rubric.criteria: is blank"),
    (
        "off the grid",
        b'{"instruction": "a", "response": "b", "rubric": {"criteria": "c", "descriptions": {"7": "d"}}}',
        422,
        "'7' is no score that can be described; the judge's scores are 1, 2, 3, 4, 5",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("body", "code", "message"), [case[1:] for case in MALFORMED], ids=[case[0] for case in MALFORMED])
@looped
async def test_a_malformed_request_is_refused_with_one_line(body: bytes, code: int, message: str) -> None:
    judge = StandIn()
    async with client_of(judge) as client:
        answer = await client.post("/v1/grade", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == code
    (line,) = answer.json().values()
    assert message in line
    assert "\n" not in line
    assert len(line) < 500
    assert judge.asked == []


@looped
async def test_a_mistake_in_a_batch_names_its_item_and_refuses_all() -> None:
    judge = StandIn()
    async with client_of(judge) as client:
        wrong = [
            await client.post("/v1/grade/batch", json={"items": [BODY, {**BODY, **change}]})
            for change in ({"instruction": ""}, {"rubric": {"criteria": 1}}, {"n_cot": 99})
        ]
    assert [answer.status_code for answer in wrong] == [422] * 3
    lines = [answer.json()["error"] for answer in wrong]
    assert [line.partition(":")[0] for line in lines] == ["items[1].instruction", "items[1].rubric.criteria", "items[1].n_cot"]
    assert judge.asked == []


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
@looped
async def test_another_content_type_is_415(kind: str) -> None:
    async with client_of(StandIn()) as client:
        answer = await client.post("/v1/grade", content=json.dumps(BODY), headers={"content-type": kind})
    assert answer.status_code == 415
    assert "application/json" in answer.json()["error"]


@looped
async def test_a_rubric_brings_its_own_scores_where_the_grid_is_not_fixed() -> None:
    async with client_of(StandIn(fixed_grid=False)) as client:
        codes = [
            (await client.post("/v1/grade", json={**BODY, "rubric": {"criteria": "c", "descriptions": {label: "d"}}})).status_code
            for label in ("0", "10", "-2.5", "1.0", "01", "x", "nan", "1e999")
        ]
    assert codes == [200, 200, 200, 422, 422, 422, 422, 422]


@looped
async def test_a_body_beyond_the_limit_is_413_also_without_a_length() -> None:
    judge = StandIn()
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1000
            yield b" " * 1000

    async with client_of(judge, max_body_bytes=5000) as client:
        fits = await client.post("/v1/grade", content=json.dumps(BODY).ljust(5000), headers={"content-type": "application/json"})
        large = await client.post("/v1/grade", content=json.dumps(BODY).ljust(5001), headers={"content-type": "application/json"})
        chunked = await client.post("/v1/grade", content=endless(), headers={"content-type": "application/json"})
        claimed = await client.post("/v1/grade", content=b"{}", headers={"content-length": "9" * 5000})
    assert [answer.status_code for answer in (fits, large, chunked, claimed)] == [200, 413, 413, 413]
    assert "5000 bytes" in chunked.json()["error"]
    assert sent <= 7000  # read no further
    assert len(judge.asked) == 1


@looped
async def test_a_body_that_does_not_arrive_is_408() -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(60)

    async with client_of(StandIn(), body_timeout_s=0.05) as client:
        answer = await client.post("/v1/grade", content=slow())
    assert answer.status_code == 408


@looped
async def test_too_many_items_are_413_and_none_is_422() -> None:
    async with client_of(StandIn(), max_batch_items=2) as client:
        codes = [(await client.post("/v1/grade/batch", json={"items": [BODY] * n})).status_code for n in (0, 2, 3)]
    assert codes == [422, 200, 413]


@looped
async def test_a_batch_that_does_not_fit_into_the_queue_is_429_as_a_whole() -> None:
    judge = StandIn(held=True)
    async with client_of(judge, max_queue=4, max_batch_items=4) as client:
        first = asyncio.create_task(client.post("/v1/grade/batch", json={"items": [BODY] * 3}))
        await until(lambda: judge.pending == 3)
        refused = await client.post("/v1/grade/batch", json={"items": [BODY] * 2})
        last = asyncio.create_task(client.post("/v1/grade", json=BODY))
        await until(lambda: judge.pending == 4)
        full = await client.post("/v1/grade", json=BODY)
        gauge = (await client.get("/metrics")).text
        judge.release()
        assert [(await task).status_code for task in (first, last)] == [200, 200]
        after = asyncio.create_task(client.post("/v1/grade", json=BODY))
        await until(lambda: judge.pending == 1)
        judge.release()
        assert (await after).status_code == 200
    assert (refused.status_code, full.status_code) == (429, 429)
    assert refused.headers["retry-after"] == "1"
    assert "3 of 4 items, so 2 more do not fit" in refused.json()["error"]
    assert "tract_queue_items 4.0" in gauge
    assert len(judge.asked) == 5


@looped
async def test_a_request_that_takes_too_long_is_504_and_leaves_the_queue() -> None:
    judge = StandIn(held=True)
    async with client_of(judge, request_timeout_s=0.05) as client:
        answer = await client.post("/v1/grade/batch", json={"items": [BODY] * 2})
    assert (answer.status_code, answer.json()["error"][:22]) == (504, "no grade within 0.05 s")
    assert (judge.pending, judge.cancelled) == (0, 2)


@pytest.mark.parametrize(("path", "body"), [("/v1/grade", BODY), ("/v1/grade/batch", {"items": [BODY] * 2})])
@looped
async def test_a_judge_that_was_closed_is_a_server_that_ends_and_no_grade(path: str, body: dict[str, Any]) -> None:
    judge = StandIn()
    async with client_of(judge) as client:
        judge.close()
        answer = await client.post(path, json=body)
        metrics = (await client.get("/metrics")).text
    assert answer.status_code == 503
    assert list(answer.json()) == ["error"]
    assert 'tract_grades_total{status="error"} 0.0' in metrics
    assert (judge.asked, judge.pending) == ([], 0)


@looped
async def test_a_judge_that_takes_only_some_of_a_batch_keeps_none() -> None:
    class Closing(StandIn):
        def submit(self, request: GradeRequest) -> Any:
            if len(self.asked) == 2:
                raise GenerationError("the judge is closed")
            return super().submit(request)

    judge = Closing(held=True)
    async with client_of(judge) as client:
        answer = await client.post("/v1/grade/batch", json={"items": [BODY] * 3})
    assert answer.status_code == 503
    assert judge.cancelled == 2


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, 401), ("Bearer right", 200), ("bearer right", 200), ("Bearer wrong", 401), ("Bearer righ", 401), ("Bearer right2", 401),
        ("Basic right", 401), ("right", 401), ("Bearer", 401), ("Bearer \xff", 401),
    ],
)  # fmt: skip
@looped
async def test_all_but_health_need_the_token(header: str | None, code: int) -> None:
    headers = [] if header is None else [(b"Authorization", header.encode("latin-1"))]
    judge = StandIn()
    async with client_of(judge, token="right") as client:
        answers = [await client.get(path, headers=headers) for path in ("/metrics", "/v1/judge", "/docs", "/openapi.json")]
        answers.append(await client.post("/v1/grade", json=BODY, headers=headers))
        assert (await client.get("/health", headers=headers)).status_code == 200
        assert (await client.get("/elsewhere", headers=headers)).status_code == (404 if code == 200 else 401)
    assert {answer.status_code for answer in answers} == {code}
    assert len(judge.asked) == (code == 200)
    if code == 401:
        assert answers[0].headers["www-authenticate"] == "Bearer"


@looped
async def test_a_token_that_is_sent_twice_is_none() -> None:
    async with client_of(StandIn(), token="right") as client:
        answer = await client.get("/metrics", headers=[("Authorization", "Bearer right"), ("Authorization", "Bearer right")])
    assert answer.status_code == 401


@looped
async def test_health_and_judge_say_what_the_judge_is() -> None:
    async with client_of(StandIn(), max_batch_items=7) as client:
        health = (await client.get("/health")).json()
        judge = (await client.get("/v1/judge")).json()
    assert health == {"status": "ok", "judge": "stand-in", "grid": ["1", "2", "3", "4", "5"], "n_cot": 2, "pending": 0}
    assert (judge["cue"], judge["predictor"], judge["grid"][-1], judge["limits"]["max_batch_items"]) == (" Score: ", "rail", "5", 7)
    assert judge["prompt"]["blocks"] == ["{instruction}", "{response}"]


@looped
async def test_metrics_count_by_path_and_code_and_each_application_by_itself() -> None:
    async with client_of(StandIn()) as client, client_of(StandIn()) as other:
        for path in ("/health", "/nowhere", "/also/nowhere"):
            await client.get(path)
        await client.post("/v1/grade", json={})
        lines = (await client.get("/metrics")).text.splitlines()
        others = (await other.get("/metrics")).text
    counted = [line for line in lines if line.startswith("tract_requests_total")]
    assert counted == [
        'tract_requests_total{code="200",path="/health"} 1.0',
        'tract_requests_total{code="404",path="other"} 2.0',
        'tract_requests_total{code="422",path="/v1/grade"} 1.0',
    ]
    assert 'tract_request_seconds_count{path="/v1/grade"} 1.0' in lines
    assert "/health" not in others


@looped
async def test_what_is_not_there_is_said_in_the_same_form() -> None:
    async with client_of(StandIn()) as client:
        nowhere, method = await client.get("/v1/grade/"), await client.get("/v1/grade")
    assert (nowhere.status_code, nowhere.json()) == (404, {"error": "Not Found"})
    assert (method.status_code, method.headers["allow"], method.json()) == (405, "POST", {"error": "Method Not Allowed"})


def test_the_document_knows_what_is_blank() -> None:
    found = create_app(StandIn(), ServerSettings()).openapi()["components"]["schemas"]["GradeBody"]["properties"]["instruction"]
    for number in (*range(0x3100), 0xFEFF, 0x1F600):
        assert bool(re.search(found["pattern"], chr(number))) == bool(chr(number).strip()), hex(number)


@looped
async def test_the_documentation_shows_every_path_and_loads_nothing() -> None:
    async with client_of(StandIn(), token="t") as client:
        page = await client.get("/docs", headers={"Authorization": "Bearer t"})
    for shown in ("POST /v1/grade", "POST /v1/grade/batch", "GET /v1/judge", "GET /health", "GET /metrics", "RubricBody", "429"):
        assert shown in page.text
    for loading in ("<script", "src=", "<link", "https://", "@import", "url("):
        assert loading not in page.text
    assert page.headers["content-security-policy"].startswith("default-src 'none'")


@looped
async def test_no_text_of_a_request_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(StandIn):
        def submit(self, request: GradeRequest) -> Any:
            raise RuntimeError(f"cannot {request.response}")

    caplog.set_level(logging.DEBUG)
    body = {**BODY, "response": "CONFIDENTIAL"}
    async with client_of(Broken()) as broken, client_of(StandIn()) as client:
        answers = [await broken.post("/v1/grade", json=body), await client.post("/v1/grade", json=body)]
        answers.append(await client.post("/v1/grade", json={**body, "n_cot": "CONFIDENTIAL"}))
    assert [answer.status_code for answer in answers] == [500, 200, 422]
    assert "RuntimeError at" in caplog.text
    assert "CONFIDENTIAL" not in caplog.text
    assert "CONFIDENTIAL" not in answers[0].text + answers[2].text


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_queue": 0}, "--max-queue: 0 is not"),
        ({"max_n_cot": 1025}, "--max-n-cot: 1025 is more than the 1024"),
        ({"max_queue": 3}, "--max-batch-items: 64 items never fit"),
        ({"request_timeout_s": float("nan")}, "--request-timeout: nan is not"),
        ({"shutdown_timeout_s": 0.0}, "--shutdown-timeout: 0 is not"),
        ({"token": "two words"}, "the bearer token"),
        ({"token": ""}, "the bearer token"),
    ],
)
def test_a_limit_that_cannot_be_used_is_told(limits: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ServerSettings(**limits)


def test_the_token_is_not_shown() -> None:
    assert "hidden" not in repr(ServerSettings(token="hidden"))


@looped
async def test_a_rubric_as_text_is_read_as_elsewhere() -> None:
    judge = StandIn(fixed_grid=False)
    mapping = {"criteria": "Is it right?", "descriptions": {"1": "no", "2": "yes"}}
    texts = ("Is it right?\n1 = no\n2 = yes", "[Is it right?]\r\nScore 1: no\r\nScore 2: yes", json.dumps(mapping))
    async with client_of(judge) as client:
        for rubric in (*texts, mapping):
            assert (await client.post("/v1/grade", json={**BODY, "rubric": rubric})).status_code == 200
        refused = await client.post("/v1/grade/batch", json={"items": [BODY, {**BODY, "rubric": "Right?\n1. no\n2. yes"}]})
    assert {request.rubric for request in judge.asked} == {Rubric("Is it right?", {1: "no", 2: "yes"})}
    assert refused.status_code == 422
    assert refused.json()["error"].startswith("items[1].rubric: cannot tell whether '1. no' and '2. yes' are scores or a numbered list")
