"""The names that messages and configurations may use."""

from typing import Annotated

from pydantic import Field

RUN_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
RunName = Annotated[str, Field(pattern=RUN_NAME)]
"""The name of a run: part of keys, paths and URLs."""

Kind = Annotated[str, Field(max_length=64)]
"""The name of a way to judge answers."""
