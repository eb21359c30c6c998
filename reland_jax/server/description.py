"""The OpenAPI description, made from the models that read the requests."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from reland_jax.server import schemas
from reland_jax.server.limits import Limits

_REF = "#/components/schemas/{model}"

_ASKED: dict[str, tuple[str, type[BaseModel], type[BaseModel]]] = {
    "/recommend": (
        "The best items of a user, or of a new one.",
        schemas.RecommendRequest,
        schemas.RecommendAnswer,
    ),
    "/explain": ("Why a list is as it is.", schemas.ExplainRequest, schemas.ExplainAnswer),
    "/similar": ("The items most like others.", schemas.SimilarRequest, schemas.SimilarAnswer),
}
"""Paths with a body: summary, request and answer."""
_GIVEN: dict[str, tuple[str, type[BaseModel] | None]] = {
    "/items": ("Items by words of their title or id.", schemas.ItemsAnswer),
    "/models": ("The recommenders that are served.", schemas.ModelsAnswer),
    "/healthz": ("Whether the process lives.", None),
    "/readyz": ("Whether it answers requests; 503 before and while it stops.", None),
    "/metrics": ("Counters in the text format of Prometheus.", None),
}
"""Paths without a body: summary and answer."""
_STATUSES = {
    "400": "The body is not JSON.", "401": "The token is missing or wrong.",
    "404": "A user, an item or a model is not known.", "413": "The body is too large.",
    "422": "A field is wrong.", "503": "Too much to do, or not ready; Retry-After says when to ask again.",
}  # fmt: skip


def description(limits: Limits) -> dict[str, Any]:
    """What the server takes and gives, as OpenAPI 3.1.

    Args:
        limits: of this server, which become bounds of the fields.
    """
    models = [model for _, *both in _ASKED.values() for model in both]
    models += [model for _, model in _GIVEN.values() if model] + [schemas.ErrorAnswer]
    _, found = models_json_schema([(model, "validation") for model in models], ref_template=_REF)
    schema_of: dict[str, Any] = found["$defs"]
    for name in ("RecommendRequest", "ExplainRequest", "SimilarRequest"):
        schema_of[name]["properties"]["k"]["maximum"] = limits.k
    for name in ("RecommendRequest", "ExplainRequest"):
        schema_of[name]["properties"]["items"]["anyOf"][0]["maxItems"] = limits.history
    asked = {path: {"post": _operation(*each)} for path, each in _ASKED.items()}
    given = {path: {"get": _operation(summary, None, answer)} for path, (summary, answer) in _GIVEN.items()}
    given["/items"]["get"]["parameters"] = [_query("q", True), _query("model", False)]
    return {
        "openapi": "3.1.0",
        "info": {"title": "Recommendations", "version": "1"},
        "paths": asked | given,
        "components": {
            "schemas": schema_of, "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }  # fmt: skip


def _operation(
    summary: str, request: type[BaseModel] | None, answer: type[BaseModel] | None
) -> dict[str, Any]:
    good: dict[str, Any] = {"description": summary}
    if answer:
        good["content"] = _content(answer)
    found: dict[str, Any] = {"summary": summary, "responses": {"200": good}, "security": [{"token": []}, {}]}
    if request:
        found["requestBody"] = {"required": True, "content": _content(request)}
        found["responses"] |= {
            status: {"description": why, "content": _content(schemas.ErrorAnswer)}
            for status, why in _STATUSES.items()
        }
    return found


def _content(model: type[BaseModel]) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": _REF.format(model=model.__name__)}}}


def _query(name: str, required: bool) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": required, "schema": {"type": "string"}}
