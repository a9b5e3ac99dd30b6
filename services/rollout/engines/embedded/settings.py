"""Bounds of the embedded engine."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EmbeddedSettings:
    """Bounds: requests decoded together, requests that may wait, memory of the prefix cache, tokens of a prefill pass.

    `context_length` lowers the model's own. `trace` costs half a second at the first load and makes decodes faster.
    """

    max_running_requests: int = 64
    max_waiting: int = 4096
    cache_bytes: int = 256 * 2**20
    prefill_tokens: int = 2048
    context_length: int | None = None
    trace: bool = True

    def __post_init__(self) -> None:
        for name in ("max_running_requests", "max_waiting", "prefill_tokens"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is at least 1: {getattr(self, name)}")
        if self.cache_bytes < 0:
            raise ValueError(f"cache_bytes is 0 (no prefix cache) or positive: {self.cache_bytes}")
        if self.context_length is not None and self.context_length < 2:
            raise ValueError(f"context_length holds a prompt and an answer, 2 tokens at least: {self.context_length}")
