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
