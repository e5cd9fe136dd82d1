"""The application: which path does what. What may come in at all is ``guard``'s, what becomes of it ``grading``'s."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse

from tract import __version__
from tract.apps.server import metrics as paths
from tract.apps.server.bodies import BatchBody, BatchOut, GradeBody, GradeOut, HealthOut, JudgeOut, LimitsOut
from tract.apps.server.errors import RequestRefusedError, error_response
from tract.apps.server.grading import grades_of, request_of
from tract.apps.server.guard import Guard
from tract.apps.server.metrics import Metrics
from tract.apps.server.service import ServedJudge, Service
from tract.apps.server.settings import ServerSettings
from tract.apps.server.spec import docs_page, refusals, spec_of
from tract.judge.grades import STATUSES

_SUMMARY = "Grades responses with a judge that writes feedback, then a score: the expectation over the scores that it could give."
# The page needs nothing from anywhere else, and may not load it.
_DOCS_HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"}


def create_app(judge: ServedJudge, settings: ServerSettings) -> FastAPI:
    """The ASGI application that serves a judge; ``app.state.service`` is what it works with.

    Answers are ``JSONResponse``, which refuses NaN: FastAPI's own would let it leave the server as null.

    Args:
        judge: a ``tract.Judge``, or what acts like one. It is not closed here. settings: limits and token.
    """
    service = Service(judge, settings, Metrics(lambda: judge.pending))
    app = FastAPI(
        title="TRACT judge", summary=_SUMMARY, version=__version__, docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False
    )
    app.state.service = service
    app.add_middleware(Guard, service=service)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _framework_error)
    _add_grading(app, service)
    _add_facts(app, service)
    _add_pages(app, service)
    return app


def _add_grading(app: FastAPI, service: Service) -> None:
    codes = refusals(service.settings, 408, 413, 415, 422, 429, 500, 503, 504)

    @app.post(paths.GRADE, response_model=GradeOut, responses=codes, summary="Grade one response", operation_id="grade")
    async def grade(request: Request, body: GradeBody) -> Response:
        """A grade with status "error" or "over_length" is an answer too: it has no score and says why."""
        grades = await grades_of(service, [request_of(body, service)], request)
        return JSONResponse(grades[0].to_dict())

    @app.post(paths.BATCH, response_model=BatchOut, responses=codes, summary="Grade several responses", operation_id="grade_batch")
    async def grade_batch(request: Request, body: BatchBody) -> Response:
        """All items are taken, or none: an item that cannot be used refuses the batch, and so does a queue without room for all."""
        most = service.settings.max_batch_items
        if len(body.items) > most:
            raise RequestRefusedError(
                413, f"items: {len(body.items)} are more than the {most} that one batch may hold; send several batches"
            )
        requests = [request_of(item, service, f"items[{number}].") for number, item in enumerate(body.items)]
        grades = await grades_of(service, requests, request)
        counted = Counter(grade.status for grade in grades)
        return JSONResponse({"grades": [grade.to_dict() for grade in grades], "counts": {status: counted[status] for status in STATUSES}})


def _add_facts(app: FastAPI, service: Service) -> None:
    @app.get(
        paths.HEALTH, response_model=HealthOut, summary="Whether the server takes requests", operation_id="health",
        responses={503: {"model": HealthOut, "description": "It is shutting down."}, **refusals(service.settings, 500, open_to_all=True)},
    )  # fmt: skip
    async def health() -> Response:
        """Needs no token. 503 while the server is shutting down."""
        found = HealthOut(
            status="shutting down" if service.draining else "ok",
            judge=service.judge.settings.name,
            grid=list(service.judge.grid.labels),
            n_cot=service.judge.settings.n_cot,
            pending=service.judge.pending,
        )
        return JSONResponse(found.model_dump(), 503 if service.draining else 200)

    others = refusals(service.settings, 500, 503)

    @app.get(paths.JUDGE, response_model=JudgeOut, responses=others, summary="How the judge works", operation_id="judge")
    async def judge_facts() -> Response:
        """Wording, cue, scores, sampling, metrics, and what a request may ask for."""
        return JSONResponse(_judge_facts(service))

    text = {"description": "Counters and gauges.", "content": {"text/plain": {"schema": {"type": "string"}}}}

    @app.get(paths.METRICS, response_class=Response, responses={200: text, **others}, summary="Prometheus metrics", operation_id="metrics")
    async def metrics() -> Response:
        """Requests by path and code, grades by status, seconds by path, items in the queue."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_pages(app: FastAPI, service: Service) -> None:
    # Both are made once: they depend on the judge and the limits alone.
    spec = spec_of(app, service)
    app.openapi = lambda: spec  # type: ignore[method-assign]
    page = docs_page(spec)

    @app.get(paths.SPEC, include_in_schema=False)
    async def openapi_json() -> Response:
        return JSONResponse(spec)

    @app.get(paths.DOCS, include_in_schema=False)
    async def docs() -> Response:
        return HTMLResponse(page, headers=_DOCS_HEADERS)


def _judge_facts(service: Service) -> dict[str, Any]:
    found = service.judge.settings
    limits = {each: getattr(service.settings, each) for each in LimitsOut.model_fields}
    known = {each.name for each in fields(found)}
    plain = {name: getattr(found, name) for name in JudgeOut.model_fields if name in known - {"prompt", "sampling", "metrics"}}
    shown = JudgeOut(
        **plain,
        prompt=asdict(found.prompt),
        cue=found.prompt.cue,
        grid=list(service.judge.grid.labels),
        sampling=asdict(found.sampling),
        metrics=dict(found.metrics),
        limits=LimitsOut(**limits),
    )
    return shown.model_dump()


async def _invalid_request(request: Request, error: Exception) -> Response:
    """422 with the first mistake, without the value: it may be long, and may be no valid text. 415 where it is no JSON at all."""
    assert isinstance(error, RequestValidationError)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        return error_response(415, "content-type: application/json is accepted; send the request as JSON with this header")
    return error_response(422, _first_mistake(error.errors()))


def _first_mistake(mistakes: Sequence[Any]) -> str:
    first = mistakes[0]
    if "rubric" in first["loc"]:  # of the ways to write one, that which was tried fails deepest
        up_to = first["loc"].index("rubric") + 1
        first = max((each for each in mistakes if each["loc"][:up_to] == first["loc"][:up_to]), key=lambda each: len(each["loc"]))
    if first["type"] == "json_invalid":
        return f"body: no JSON ({first['ctx']['error']})"
    steps = [step for step in first["loc"][1:] if step not in ("RubricBody", "str")]
    place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).lstrip(".")
    return f"{place or 'body'}: {first['msg']}"


async def _framework_error(request: Request, error: Exception) -> Response:
    """Errors of the framework in this server's form; a body that cannot be read (nesting, encoding, huge numbers) is one of the request."""
    assert isinstance(error, HTTPException)
    if error.status_code == 400:
        return error_response(422, "body: no JSON that can be read; send UTF-8, not nested deeper than a request is")
    return error_response(error.status_code, str(error.detail), error.headers)
