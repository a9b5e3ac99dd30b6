"""The base of every message that crosses a process boundary."""

from math import isfinite
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, model_validator

PROTOCOL_VERSION = 2
_MAX_DEPTH = 32


class Message(BaseModel):
    """Immutable; an unknown field is an error. Its texts can be written as UTF-8, so that a process can pass on what it
    accepted."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="after")
    def _check_texts(self) -> Self:
        for value in self.__dict__.values():
            if isinstance(value, str):
                _check_text(value)
        return self


def _check_text(text: str) -> None:
    # JSON may contain half of a surrogate pair, which UTF-8 cannot encode; the test for ASCII is free
    if not text.isascii():
        text.encode()


def _check_portable(value: Any, depth: int = 0) -> Any:
    """`value` as it is; ValueError unless JSON and msgpack both carry it unchanged."""
    if depth > _MAX_DEPTH:
        raise ValueError(f"nested more than {_MAX_DEPTH} deep")
    match value:
        case str():
            _check_text(value)
        case int() if not -(2**63) <= value < 2**63:
            raise ValueError("an integer beyond 64 bits; give it as text")
        case float() if not isfinite(value):
            raise ValueError(f"{value} is no number in JSON; give it as text")
        case None | int() | float():
            pass
        case list():
            for item in value:
                _check_portable(item, depth + 1)
        case dict():
            for name, item in value.items():
                if not isinstance(name, str):
                    raise ValueError(f"the key {name!r} is no text")
                _check_text(name)
                _check_portable(item, depth + 1)
        case _:
            raise ValueError(f"a {type(value).__name__} is nothing that JSON can hold")
    return value


JsonObject = Annotated[dict[str, Any], AfterValidator(_check_portable)]
"""An object of values that JSON and msgpack carry unchanged; its reader knows its shape."""
