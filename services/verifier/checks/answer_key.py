"""Reading an item's answer key into the model of its kind."""

from typing import TypeVar

from pydantic import ValidationError

from shared.errors import InvalidInput
from shared.protocol.message import Message
from shared.protocol.verdict import VerdictItem

M = TypeVar("M", bound=Message)


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
