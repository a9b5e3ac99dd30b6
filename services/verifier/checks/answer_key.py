"""Reads an item's answer key into the model of its kind."""

from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from shared.errors import InvalidInput
from shared.protocol.verdict import VerdictItem


class AnswerKey(BaseModel):
    """The base of a kind's key: immutable, so that it can be a cache's, and strict about unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


M = TypeVar("M", bound=BaseModel)


def read_key(model: type[M], item: VerdictItem) -> M:
    """The item's answer key as `model`; InvalidInput names the item, the field and what it should be."""
    try:
        return model.model_validate(item.answer_key)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(map(str, ("answer_key", *first["loc"])))
        fields = ", ".join(model.model_fields)
        raise InvalidInput(
            f"item {item.id!r} (kind {item.kind!r}): {place}: {first['msg']}; its answer_key has the fields {fields}"
        ) from None
