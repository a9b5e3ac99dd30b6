"""A streamed answer that holds a resource while it is sent."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send


class StreamedAnswer(StreamingResponse):
    """Streams what the context `held` yields: entered before the first byte, so that its errors still get an answer of
    their own, and left after the last byte, or when the caller leaves."""

    def __init__(
        self,
        held: AbstractAsyncContextManager[AsyncIterator[bytes]],
        media_type: str,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(content=(), media_type=media_type, headers=headers)
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._held as self.body_iterator:
            await super().__call__(scope, receive, send)
