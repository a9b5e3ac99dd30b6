"""The calls of SGLang's HTTP interface that a replica makes, each with a deadline."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from services.rollout.engines.sglang import wire_format as wire
from services.rollout.engines.sglang.connections import Answer, Connections
from shared.errors import Unavailable
from shared.tree.draw import WeightVersion

_INFO_SECONDS = 20.0
_PAUSE_SECONDS = 60.0
_ABORT_SECONDS = 5.0


class Late(Unavailable):
    """No answer within the deadline: the server may be hung."""


class NotLoaded(Unavailable):
    """A weight update that was not a plain success: which weights and cache the server has now is unknown."""


class SglangClient:
    """One server. Nothing here is tried twice: who calls knows what is safe to repeat."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._connections = Connections(url)

    def close(self) -> None:
        """Closes every connection: requests in flight end as Unreachable."""
        self._connections.close()

    async def generate(self, body: bytes, seconds: float, on_first_token: Callable[[], None] | None) -> dict[str, Any]:
        """A completion's answer, read whole; with `on_first_token`, `body` asked for a stream.

        Raises InvalidInput for what the server refuses, Overloaded when its queue is full, Unreachable or Late."""
        async with _deadline("a completion", seconds):
            if on_first_token is None:
                return wire.parsed((await self._asked("POST", "/generate", body)).body)
            answer = await self._asked("POST", "/generate", body, lambda _: on_first_token())
        return wire.last_event(answer.body) if answer.body.startswith(b"data:") else wire.parsed(answer.body)

    async def abort(self, rid: str) -> None:
        """Drops a request that nobody waits for. The server takes it at its word whether or not it knows the id."""
        async with _deadline("an abort", _ABORT_SECONDS):
            await self._post("/abort_request", {"rid": rid})

    async def pause(self) -> None:
        """Sends every running request back to the queue, where it waits for `resume` with the tokens it has."""
        async with _deadline("a pause", _PAUSE_SECONDS):
            await self._post("/pause_generation", {"mode": "retract"})

    async def resume(self) -> None:
        """Goes on; every request's prefix is computed anew."""
        async with _deadline("going on", _PAUSE_SECONDS):
            await self._post("/continue_generation", {})

    async def update_weights(self, directory: Path, version: WeightVersion, seconds: float) -> None:
        """Replaces the weights and empties the cache. NotLoaded unless the server says that it did both."""
        body = {
            "model_path": str(directory),
            "weight_version": str(version),
            "flush_cache": True,
            "abort_all_requests": False,
        }
        async with _deadline("loading weights", seconds):
            content = json.dumps(body).encode()
            answer = await self._connections.ask("POST", "/update_weights_from_disk", content)
        if not answer.is_success or wire.parsed(answer.body).get("success") is not True:
            raise NotLoaded(f"SGLang did not load {version}: {wire.message_of(answer.body)}")

    async def model_info(self) -> dict[str, Any]:
        """Among others `weight_version` and `model_path`."""
        async with _deadline("model_info", _INFO_SECONDS):
            return wire.parsed((await self._asked("GET", "/model_info")).body)

    async def server_info(self) -> dict[str, Any]:
        """Among others `version` and `max_req_input_len`."""
        async with _deadline("server_info", _INFO_SECONDS):
            return wire.parsed((await self._asked("GET", "/server_info")).body)

    async def check_listening(self, seconds: float) -> None:
        """Returns when the server has loaded its model and listens."""
        async with _deadline("health", seconds):
            await self._asked("GET", "/health")

    async def check_generating(self, seconds: float) -> None:
        """Returns when a token has passed through every process of the server."""
        async with _deadline("a health check", seconds):
            await self._asked("GET", "/health_generate")

    async def metrics(self, seconds: float) -> str:
        """The server's own series, in Prometheus' text format."""
        async with _deadline("metrics", seconds):
            return (await self._asked("GET", "/metrics")).body.decode("utf-8", "replace")

    async def _post(self, path: str, body: dict[str, Any]) -> Answer:
        return await self._asked("POST", path, json.dumps(body).encode())

    async def _asked(
        self, method: str, path: str, body: bytes = b"", on_piece: Callable[[bytes], None] | None = None
    ) -> Answer:
        answer = await self._connections.ask(method, path, body, on_piece)
        if not answer.is_success:
            raise wire.error_of(answer.status, answer.body)
        return answer


@asynccontextmanager
async def _deadline(what: str, seconds: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise Late(f"no answer from SGLang to {what} within {seconds:g} s: it may be hung or overloaded") from error
