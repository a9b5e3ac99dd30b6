"""Parses an item's answer key into its kind's model."""

from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from shared.errors import InvalidInput
from shared.protocol.verdict import VerdictItem


class AnswerKey(BaseModel):
    """Base of every key: hashable, and unknown fields are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


M = TypeVar("M", bound=BaseModel)


def read_key(model: type[M], item: VerdictItem) -> M:
    """The item's answer key as `model`. InvalidInput names the item and the wrong field."""
    try:
        return model.model_validate(item.answer_key)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        field = ".".join(map(str, ("answer_key", *first["loc"])))
        fields = ", ".join(model.model_fields)
        raise InvalidInput(
            f"item {item.id!r} (kind {item.kind!r}): {field}: {first['msg']}; its answer_key has the fields {fields}"
        ) from None
