"""The base of every message that crosses a process boundary."""

from pydantic import BaseModel, ConfigDict

PROTOCOL_VERSION = 1


class Message(BaseModel):
    """Immutable, and strict about unknown fields: a misspelt one is an error, not silence."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
