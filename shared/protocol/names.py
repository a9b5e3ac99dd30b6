"""What may be a name."""

from typing import Annotated

from pydantic import Field

Kind = Annotated[str, Field(max_length=64)]
"""Of a way to judge answers."""
