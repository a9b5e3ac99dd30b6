"""What every call shares: a deadline over the whole of it, errors as ours, and JSON read into messages."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import httpx
from pydantic import TypeAdapter, ValidationError

from shared.errors import MalformedAnswer, shorten
from shared.protocol.message import Message
from shared.runtime.client import call_deadline, raise_for_error, timeouts

JSON = "application/json"
MSGPACK = "application/msgpack"
NDJSON = "application/x-ndjson"
T = TypeVar("T")


class Exchange:
    """Requests to one service, which errors call by `name`."""

    def __init__(self, http: httpx.AsyncClient, url: str, name: str) -> None:
        self.name = name
        self._http = http
        self._url = url.rstrip("/")

    async def request(
        self, method: str, path: str, within_seconds: float, *, message: Message | None = None, accept: str = JSON
    ) -> bytes:
        """The body of a success."""
        async with self.open(method, path, within_seconds, **_body_of(message, accept)) as response:
            return await response.aread()

    @asynccontextmanager
    async def open(
        self, method: str, path: str, within_seconds: float | None, **more: Any
    ) -> AsyncIterator[httpx.Response]:
        """A success whose body is still to be read. The deadline covers the whole block; None leaves only the HTTP
        client's bound on each wait. `more` goes to httpx."""
        if within_seconds is not None:
            more["timeout"] = timeouts(within_seconds)
        async with (
            call_deadline(self.name, within_seconds),
            self._http.stream(method, self._url + path, **more) as response,
        ):
            if not response.is_success:
                await response.aread()
                raise_for_error(response)
            yield response

    @asynccontextmanager
    async def open_lines(self, path: str, message: Message, within_seconds: float) -> AsyncIterator[AsyncIterator[str]]:
        """The lines of a streamed answer to a posted message."""
        async with self.open("POST", path, within_seconds, **_body_of(message, NDJSON)) as response:
            yield response.aiter_lines()

    def read(self, adapter: TypeAdapter[T], body: str | bytes) -> T:
        """The message in a body; MalformedAnswer when it holds none."""
        try:
            return adapter.validate_json(body)
        except ValidationError as error:
            raise MalformedAnswer(f"{self.name} answered with what cannot be read: {shorten(str(error))}") from error


def _body_of(message: Message | None, accept: str) -> Mapping[str, Any]:
    headers = {"Accept": accept}
    if message is None:
        return {"headers": headers}
    return {"content": message.model_dump_json(), "headers": {**headers, "Content-Type": JSON}}
