"""schemathesis asks the application whatever its OpenAPI document allows and forbids, with all checks, and finds nothing."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import settings
from schemathesis.checks import CHECKS
from stand_in import StandIn, no_model

from tract.apps.server.app import create_app
from tract.apps.server.settings import ServerSettings

TOKEN = {"Authorization": "Bearer a-token"}
OPEN = schemathesis.openapi.from_asgi("/openapi.json", create_app(StandIn(), ServerSettings()))
GUARDED = schemathesis.openapi.from_asgi("/openapi.json", create_app(StandIn(no_model), ServerSettings(token="a-token")), headers=TOKEN)
ANY_GRID = schemathesis.openapi.from_asgi("/openapi.json", create_app(StandIn(fixed_grid=False), ServerSettings(max_n_cot=3)))
LABELS = {"POST /v1/grade", "POST /v1/grade/batch", "GET /v1/judge", "GET /health", "GET /metrics"}
# What is looked for, beside 5xx.
CHECKED = {
    "status_code_conformance", "content_type_conformance", "response_headers_conformance", "response_schema_conformance",
    "negative_data_rejection", "positive_data_acceptance", "unsupported_method", "ignored_auth",
}  # fmt: skip


def test_every_path_and_every_check_is_used() -> None:
    assert {operation.ok().label for operation in OPEN.get_all_operations()} == LABELS
    assert {check.__name__ for check in CHECKS.get_all()} >= CHECKED


@OPEN.parametrize()
@settings(max_examples=10)
def test_nothing_is_found(case: Any) -> None:
    case.call_and_validate()


@GUARDED.parametrize()
@settings(max_examples=5)
def test_nothing_is_found_with_a_token_and_a_judge_that_fails(case: Any) -> None:
    case.call_and_validate(headers=TOKEN)


@pytest.mark.slow
@ANY_GRID.parametrize()
@settings(max_examples=150)
def test_nothing_is_found_where_rubrics_bring_their_scores(case: Any) -> None:
    case.call_and_validate()
