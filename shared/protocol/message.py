"""The base of every message that crosses a process boundary."""

from collections.abc import Iterable
from math import isfinite
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from shared.errors import first_reason, shorten

PROTOCOL_VERSION = 4
OVERSIZED = "oversized"
"""The type of the validation error for an object of more values than a message may have."""
_MAX_DEPTH = 32
_MAX_VALUES = 50_000
_MAX_ERRORS = 100
_PLAIN = (str, int, float, list, dict)


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


class BoundedErrors(Message):
    """A message from a stranger: where very much is wrong with it, that is one error."""

    @model_validator(mode="wrap")
    @classmethod
    def _bound_errors(cls, value: Any, validate: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return validate(value)
        except ValidationError as error:
            if reason := too_many_errors(error):
                raise ValueError(reason) from None
            raise


def _check_text(text: str) -> None:
    # JSON may contain half of a surrogate pair, which UTF-8 cannot encode; the test for ASCII is free
    if not text.isascii():
        text.encode()


def too_many_errors(error: ValidationError) -> str:
    """What to say of a message in place of its errors, where listing them would take long; empty where it would not."""
    found = error.error_count()
    return f"{found} fields or values are wrong or unknown; /docs says what is wanted" if found > _MAX_ERRORS else ""


def complaint(error: ValueError) -> str:
    """What is wrong with a message, in one line."""
    if isinstance(error, ValidationError):
        return too_many_errors(error) or shorten(first_reason(error))
    return shorten(" ".join(str(error).split()))


def check_object(value: dict[str, Any]) -> dict[str, Any]:
    """ValueError unless JSON and msgpack both carry the value unchanged, and it is of bounded depth and size."""
    level: list[Any] = [value]
    num_values = 0
    for _ in range(_MAX_DEPTH + 1):  # values by their depth: a key may have very many
        num_values += len(level)
        if num_values > _MAX_VALUES:
            raise PydanticCustomError(OVERSIZED, f"more than {_MAX_VALUES} values")
        level = [inner for outer in level for inner in _check_portable(outer)]
        if not level:
            return value
    raise ValueError(f"nested more than {_MAX_DEPTH} deep")


def _check_portable(value: Any) -> Iterable[Any]:
    """The values inside one that JSON and msgpack both carry unchanged; ValueError for another one."""
    kind = type(value)
    if kind not in _PLAIN and kind is not bool:
        kind = next((plain for plain in _PLAIN if isinstance(value, plain)), kind)
    if kind is str:
        _check_text(value)
    elif kind is int:
        if not -(2**63) <= value < 2**63:
            raise ValueError("an integer beyond 64 bits; give it as text")
    elif kind is float:
        if not isfinite(value):
            raise ValueError(f"{value} is no number in JSON; give it as text")
    elif kind is list:
        return value  # type: ignore[no-any-return]
    elif kind is dict:
        for name in value:
            if not isinstance(name, str):
                raise ValueError(f"the key {name!r} is no text")
            _check_text(name)
        return value.values()  # type: ignore[no-any-return]
    elif kind is not bool and value is not None:
        raise ValueError(f"a {kind.__name__} is nothing that JSON can hold")
    return ()


JsonObject = Annotated[dict[str, Any], AfterValidator(check_object)]
"""An object of values that JSON and msgpack carry unchanged; its reader knows its shape."""
