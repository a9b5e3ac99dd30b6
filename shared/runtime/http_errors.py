"""Error answers: problem details (RFC 9457) for every error that a service knows."""

import json
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from shared.errors import IbtpoError, shorten
from shared.runtime.logs import blank_secrets

MEDIA_TYPE = "application/problem+json"
_MAX_ERRORS = 20
_REASONS = {
    400: "This is not HTTP, or the body is not JSON in UTF-8",
    401: "No token, or a wrong one; without tokens, a request from another site or machine",
    408: "The head of the request took too long",
    409: "It contradicts what is there already",
    413: "The body is over the bound of this route",
    416: "The range holds none of the bytes",
    422: "It can never succeed as it is",
    429: "A bounded queue is full: try again later",
    431: "The head of the request is too large",
    500: "An unexpected error, which the log shows",
    503: "Not now: a later try may succeed",
}
_OF_EVERY_ROUTE = (400, 401, 408, 431, 500, 503)
_OF_INPUT = (413, 422)


class FieldError(BaseModel):
    """What is wrong with one field of a request."""

    model_config = ConfigDict(extra="forbid")

    field: str
    message: str


class ProblemDetails(BaseModel):
    """Problem details (RFC 9457): the answer to every request that fails."""

    model_config = ConfigDict(extra="forbid")

    type: str
    title: str = Field(description="The kind of error")
    status: int = Field(description="The HTTP status")
    detail: str = Field(description="What is wrong, and what to do")
    errors: tuple[FieldError, ...] | None = Field(None, description="Each wrong field, with status 422")


def describe_errors(document: dict[str, Any]) -> None:
    """Adds the error answers to an OpenAPI document: those of every route, those of routes with input, and those whose
    status a route declares itself."""
    reference = "#/components/schemas/"
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):  # what FastAPI would answer
        schemas.pop(name, None)
    model = ProblemDetails.model_json_schema(ref_template=f"{reference}{{model}}")
    schemas.update({**model.pop("$defs"), "ProblemDetails": model})
    content = {MEDIA_TYPE: {"schema": {"$ref": f"{reference}ProblemDetails"}}}
    for path in document["paths"].values():
        for operation in path.values():
            answers = operation["responses"]
            declared = [int(status) for status in answers if int(status) >= HTTPStatus.BAD_REQUEST]
            has_input = "requestBody" in operation or "parameters" in operation
            for status in {*declared, *_OF_EVERY_ROUTE, *(_OF_INPUT if has_input else ())}:
                answers[str(status)] = {"description": _REASONS[status], "content": content}


def problem_details(
    status: int,
    detail: str,
    *,
    title: str = "",
    errors: Iterable[Mapping[str, str]] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """An answer of problem details, without passwords in URLs; long texts are cut, so that no input is echoed at
    length."""
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": title or HTTPStatus(status).phrase.lower(),
        "status": status,
        "detail": shorten(blank_secrets(detail)),
    }
    listed = [dict(error) for error in errors]
    if listed:
        body["errors"] = listed
    content = json.dumps(body, ensure_ascii=True).encode()
    return Response(content, status_code=status, headers=headers, media_type=MEDIA_TYPE)


def error_response(error: IbtpoError) -> Response:
    """The answer to an error of ours."""
    headers = {}
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    if error.status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS):
        headers["Retry-After"] = "1"
    return problem_details(error.status, str(error), title=error.title, headers=headers)


def install_error_handlers(app: FastAPI) -> None:
    """Makes `app` answer errors of ours, of validation, and of unknown routes and methods as problem details."""
    app.add_exception_handler(IbtpoError, _on_ibtpo_error)
    app.add_exception_handler(RequestValidationError, _on_validation_error)
    app.add_exception_handler(HTTPException, _on_http_exception)


async def _on_ibtpo_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, IbtpoError)
    return error_response(error)


async def _on_validation_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors = error.errors()
    if errors[0]["type"] == "json_invalid":
        reason = errors[0].get("ctx", {}).get("error", "")
        return problem_details(
            HTTPStatus.BAD_REQUEST, f"the body is not JSON: {reason} at character {errors[0]['loc'][-1]}"
        )
    listed = [_field_error(item) for item in errors[:_MAX_ERRORS]]
    first = listed[0]
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    detail = f"{first['field']}: {first['message']}{more}"
    return problem_details(HTTPStatus.UNPROCESSABLE_ENTITY, detail, title="invalid input", errors=listed)


def _field_error(item: Mapping[str, Any]) -> dict[str, str]:
    field = ".".join(shorten(str(part)) for part in item["loc"]) or "body"
    message = str(item["msg"])
    if isinstance(item.get("input"), bytes):
        message = "not read as JSON; send the header Content-Type: application/json"
    return {"field": shorten(field), "message": shorten(message)}


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = str(error.detail)
    if error.status_code == HTTPStatus.NOT_FOUND and detail == "Not Found":
        detail = f"no route {request.method} {request.url.path}; /docs lists what there is"
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = (error.headers or {}).get("Allow", "another method")
        detail = f"{request.method} is not allowed on {request.url.path}; use {allowed}"
    if error.status_code == HTTPStatus.BAD_REQUEST and error.__cause__ is not None:
        detail = _why_not_json(error.__cause__)
    return problem_details(error.status_code, detail, headers=error.headers)


def _why_not_json(cause: BaseException) -> str:
    """Why a body could not be read as JSON."""
    match cause:
        case UnicodeDecodeError():
            return f"the body is not UTF-8: {cause.reason} at byte {cause.start}"
        case RecursionError():
            return "the body is not JSON that can be read: it is nested too deeply"
        case ValueError():
            return f"the body is not JSON that can be read: {cause}"
        case _:
            return "the body could not be read"
