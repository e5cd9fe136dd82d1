"""The OpenAPI document, complete for this judge and these limits, and a page that shows it without scripts or anything from elsewhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from tract.apps.server.bodies import ErrorOut
from tract.apps.server.errors import RETRY_AFTER_S
from tract.apps.server.grading import LABEL
from tract.apps.server.metrics import HEALTH
from tract.apps.server.service import Service
from tract.apps.server.settings import ServerSettings

_REASONS = {
    401: "The token is missing or wrong.",
    408: "The body did not arrive in time.",
    413: "The body is too large, or the batch has too many items.",
    415: "The body is not application/json.",
    422: "The request is malformed; the error says where.",
    429: "There is no room in the queue; try again later.",
    500: "A fault of the server.",
    503: "The server is shutting down.",
    504: "The grades took too long.",
}
_HEADERS = {
    401: {"WWW-Authenticate": {"description": "Bearer.", "schema": {"type": "string"}}},
    429: {"Retry-After": {"description": f"Seconds, {RETRY_AFTER_S}.", "schema": {"type": "string", "pattern": "^[0-9]+$"}}},
}
_SCHEME = "token"
# What ``str.strip`` leaves something of. Not "\S": what it takes for blank differs between languages.
_NOT_BLANK = r"[^\t-\r \x1c-\x1f\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]"


def refusals(settings: ServerSettings, *codes: int, open_to_all: bool = False) -> dict[int | str, dict[str, Any]]:
    """The answers that are errors, for FastAPI; 401 is one of them where a token is asked for."""
    asked = () if settings.token is None or open_to_all else (401,)
    return {
        code: {"model": ErrorOut, "description": _REASONS[code], **({"headers": _HEADERS[code]} if code in _HEADERS else {})}
        for code in (*asked, *codes)
    }


def spec_of(app: FastAPI, service: Service) -> dict[str, Any]:
    """The document. FastAPI knows types; limits and scores are those of this service."""
    spec = get_openapi(title=app.title, summary=app.summary, version=app.version, routes=app.routes)
    schemas = spec["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):  # FastAPI's own form of 422, which is not sent
        schemas.pop(name, None)
    for name, field in (("GradeBody", "instruction"), ("RubricBody", "criteria")):
        schemas[name]["properties"][field]["pattern"] = _NOT_BLANK
    for option in schemas["GradeBody"]["properties"]["n_cot"]["anyOf"]:
        if option.get("type") == "integer":
            option["maximum"] = service.settings.max_n_cot
    # maxItems is not said: more items than these are refused for their size (413), not as malformed (422).
    schemas["BatchBody"]["properties"]["items"]["description"] += f" At most {service.settings.max_batch_items}."
    fixed = service.judge.settings.fixed_grid
    labels = {"enum": list(service.judge.grid.labels)} if fixed else {"type": "string", "pattern": LABEL.pattern}
    schemas["RubricBody"]["properties"]["descriptions"]["propertyNames"] = labels
    if service.settings.token is not None:
        spec["components"]["securitySchemes"] = {_SCHEME: {"type": "http", "scheme": "bearer"}}
        for path, operations in spec["paths"].items():
            for operation in operations.values():
                operation["security"] = [] if path == HEALTH else [{_SCHEME: []}]
    return spec


def docs_page(spec: Mapping[str, Any]) -> str:
    """The document as HTML."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["json"] = lambda value: json.dumps(value, indent=2, ensure_ascii=False)
    environment.filters["kind"] = _kind
    return environment.get_template("docs.html.jinja").render(spec=spec, example=_example(spec))


def _kind(schema: Mapping[str, Any]) -> str:
    """A schema in a few words, e.g. "string or null", "list of GradeOut"."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(map(_kind, schema["anyOf"]))
    if "enum" in schema:
        return ", ".join(map(json.dumps, schema["enum"]))
    if schema.get("type") == "array":
        return f"list of {_kind(schema['items'])}" if "items" in schema else f"{len(schema['prefixItems'])} numbers"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_kind(schema['additionalProperties'])}"
    return str(schema.get("type", "anything"))


def _example(spec: Mapping[str, Any]) -> dict[str, Any]:
    """A request that can be sent as it is."""
    fields = spec["components"]["schemas"]["GradeBody"]["properties"]
    return {name: field["examples"][0] for name, field in fields.items() if "examples" in field}
