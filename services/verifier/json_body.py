"""Reads a batch from a request's JSON, item by item: what is wrong with one costs no other its verdict."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import Field, ValidationError

from services.verifier.checks.check import yielding
from services.verifier.json_items import CutItem, cut_batch
from services.verifier.surrogates import NOT_TEXT, is_text, load_json, make_text
from shared.errors import InvalidInput, first_reason, shorten
from shared.protocol.message import OVERSIZED, Message, too_many_errors
from shared.protocol.verdict import MAX_ITEMS, VerdictItem, VerdictRequest

_JSON = "application/json"
# Reading this much at once takes a millisecond or two.
_MAX_READ_AT_ONCE = 1 << 16
_MAX_SHOWN_ID = 1_000
# What shows that a caller speaks another protocol, or has a key that no verifier takes.
_REFUSED = frozenset({"missing", "extra_forbidden", OVERSIZED})


@dataclass(frozen=True, slots=True)
class ReadBatch:
    """The items, and why some cannot be judged, by their position; of those `items` has the id alone."""

    items: tuple[VerdictItem, ...]
    unreadable: Mapping[int, str]
    deadline_seconds: float | None


class _Frame(Message):
    """A batch without its items."""

    items: Annotated[tuple[None, ...], Field(max_length=0)]
    deadline_seconds: float | None = Field(None, gt=0, le=3600, strict=True)


async def read_batch(request: Request) -> ReadBatch:
    """The batch of a request. Raises InvalidInput or RequestValidationError, answered with 422, or 400 if not JSON."""
    content_type = request.headers.get("content-type", "")
    if content_type.partition(";")[0].strip().lower() != _JSON:
        raise InvalidInput(f"content-type {content_type!r}: send {_JSON}")
    body = await request.body()
    if len(body) <= _MAX_READ_AT_ONCE:
        try:
            batch = VerdictRequest.model_validate_json(body)
        except ValidationError:
            pass  # which items are wrong is found one by one
        else:
            return ReadBatch(batch.items, {}, batch.deadline_seconds)
    return await _read_items(body)


async def _read_items(body: bytes) -> ReadBatch:
    (cut,) = [found async for _, found in yielding(cut_batch(body, MAX_ITEMS)) if found is not None]
    try:
        frame = _Frame.model_validate_json(cut.frame)
    except ValidationError as error:
        raise _refusal(error, "body") from None
    if not cut.items:
        raise InvalidInput("the batch has no items; send at least one")
    items: list[VerdictItem] = []
    unreadable: dict[int, str] = {}
    async for _, together in yielding(_group(cut.items)):
        read = _read_together(together)
        if read is not None:
            items += read
            continue
        async for _, text in yielding(together):
            try:
                items.append(VerdictItem.model_validate_json(text.text))
            except ValidationError as error:
                unreadable[len(items)] = _reason_or_refusal(error, len(items), text)
                items.append(VerdictItem.model_construct(id=_find_id(text), kind="", response="", answer_key={}))
    return ReadBatch(tuple(items), unreadable, frame.deadline_seconds)


def _group(items: Sequence[CutItem]) -> Iterator[list[CutItem]]:
    """The items, as many together as may be read at once."""
    group: list[CutItem] = []
    num_bytes = 0
    for item in items:
        num_bytes += len(item.text)
        if group and num_bytes > _MAX_READ_AT_ONCE:
            yield group
            group, num_bytes = [], len(item.text)
        group.append(item)
    if group:
        yield group


def _read_together(items: Sequence[CutItem]) -> Sequence[VerdictItem] | None:
    """The items; None where one is wrong, or where there is but one, which is as well read alone."""
    if len(items) == 1:
        return None
    try:
        return VerdictRequest.model_validate_json(b'{"items":[%b]}' % b",".join(item.text for item in items)).items
    except ValidationError:
        return None


def _reason_or_refusal(error: ValidationError, position: int, item: CutItem) -> str:
    """Why an item cannot be judged. Raises what the whole batch is refused with if it is no item at all."""
    if reason := too_many_errors(error):
        return reason
    complaints = error.errors(include_url=False, include_context=False, include_input=False)
    if any(one["type"] in _REFUSED and len(one["loc"]) == 1 for one in complaints):
        raise _refusal(error, "body", "items", position)
    if complaints[0]["type"] == "json_invalid":
        try:
            if not is_text(load_json(item.text)):
                return NOT_TEXT
        except RecursionError:
            pass  # it is JSON, but too deep
        except ValueError:
            raise _refusal(error, "body", "items", position) from None
    return shorten(make_text(f"it cannot be read: {first_reason(error)}"))


def _find_id(item: CutItem) -> str:
    try:
        value = load_json(item.outline)
    except (ValueError, RecursionError):
        return ""
    item_id = value.get("id") if isinstance(value, dict) else None
    return make_text(str(item_id)[:_MAX_SHOWN_ID]) if isinstance(item_id, str | int | float) else ""


def _refusal(error: ValidationError, *where: str | int) -> Exception:
    if reason := too_many_errors(error):
        return InvalidInput(reason)
    complaints = error.errors(include_url=False, include_input=False)
    return RequestValidationError([{**one, "loc": (*where, *one["loc"])} for one in complaints])


def describe_body() -> dict[str, Any]:
    """The body's part of the route's OpenAPI description."""
    schema = VerdictRequest.model_json_schema()
    definitions = schema.pop("$defs", {})
    schema = _inline_references(schema, definitions)
    item = schema["properties"]["items"]["items"]
    bad_item = {
        **{name: item[name] for name in ("type", "required", "additionalProperties")},
        "properties": {name: {} for name in item["properties"]},
        "description": "An item with values of other types: it has no reward, and its verdict says why.",
    }
    schema["properties"]["items"]["items"] = {"anyOf": [item, bad_item]}
    content = {_JSON: {"schema": schema}}
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
