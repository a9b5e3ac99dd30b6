"""Parses a request's body from JSON straight into a VerdictRequest: faster than FastAPI's way over Python objects."""

import json
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ValidationError

from services.verifier.surrogates import is_text, load_json, make_text
from shared.errors import InvalidInput
from shared.protocol.message import too_many_errors
from shared.protocol.verdict import VerdictRequest

_JSON = "application/json"


async def read_batch(request: Request) -> tuple[VerdictRequest, frozenset[int]]:
    """The batch, and the positions of items that are no text, in whose place stand empty ones.

    Raises InvalidInput or RequestValidationError, answered with 422, or with 400 for what is not JSON.
    """
    content_type = request.headers.get("content-type", "")
    if content_type.partition(";")[0].strip().lower() != _JSON:
        raise InvalidInput(f"content-type {content_type!r}: send {_JSON}")
    body = await request.body()
    unreadable: frozenset[int] = frozenset()
    try:
        try:
            batch = VerdictRequest.model_validate_json(body)
        except ValidationError as error:
            if reason := too_many_errors(error):
                raise InvalidInput(reason) from None
            if error.errors(include_input=False)[0]["type"] != "json_invalid":
                raise
            body, unreadable = _replace_unreadable(body)
            batch = VerdictRequest.model_validate_json(body)
    except ValidationError as error:
        raise RequestValidationError(
            [{**item, "loc": ("body", *item["loc"])} for item in error.errors(include_url=False)]
        ) from error
    return batch, unreadable


def _replace_unreadable(body: bytes) -> tuple[bytes, frozenset[int]]:
    """The body with an empty item for each that is no text; as it is if that is not what is wrong with it."""
    try:
        value = load_json(body)
    except (ValueError, RecursionError):
        return body, frozenset()
    items = value.get("items") if isinstance(value, dict) else None
    if not isinstance(items, list):
        return body, frozenset()
    unreadable = frozenset(n for n, item in enumerate(items) if isinstance(item, dict) and not is_text(item))
    for position in unreadable:
        names = {name: items[position].get(name) for name in ("id", "kind")}
        kept = {name: make_text(text) if isinstance(text, str) else text for name, text in names.items()}
        items[position] = {**kept, "response": "", "answer_key": {}}
    return (json.dumps(value).encode() if unreadable else body), unreadable


def describe_body(model: type[BaseModel]) -> dict[str, Any]:
    """The body's part of a route's OpenAPI description."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})
    content = {_JSON: {"schema": _inline_references(schema, definitions)}}
    return {"requestBody": {"required": True, "content": content}}


def _inline_references(schema: Any, definitions: dict[str, Any]) -> Any:
    """The schema without `$ref`: within OpenAPI, its references would point elsewhere."""
    if isinstance(schema, list):
        return [_inline_references(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inline_references(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    return {name: _inline_references(item, definitions) for name, item in schema.items()}
