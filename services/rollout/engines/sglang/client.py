"""A replica's calls of SGLang's HTTP interface, each with a deadline."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

from services.rollout.engines.sglang import wire_format as wire
from services.rollout.engines.sglang.connections import Connections, OnPiece
from shared.errors import DeadlineExceeded, Unavailable
from shared.tree.draw import WeightVersion

OLDEST = (0, 5, 21)
"""0.5.20 dies when weights are replaced while requests wait: it empties its cache only when idle."""
NEWEST_SEEN = (0, 5, 23)
"""The newest release that the tests ran against; later releases of the same minor series are accepted."""

_INFO_SECONDS = 20.0
_PAUSE_SECONDS = 60.0
_ABORT_SECONDS = 5.0

Check: TypeAlias = Callable[["SglangClient"], Awaitable[None]]


class SglangClient:
    """One server. Nothing is retried here: the callers know what is safe to repeat."""

    def __init__(self, url: str) -> None:
        self._connections = Connections(url)

    def close(self) -> None:
        """Closes every connection: requests in flight end as Unreachable."""
        self._connections.close()

    async def generate(self, body: bytes, seconds: float, on_first_token: Callable[[], None] | None) -> dict[str, Any]:
        """The answer to a completion request; with `on_first_token`, `body` must ask for a stream.

        Raises InvalidInput if the server refuses it, Overloaded if its queue is full, Unreachable or
        DeadlineExceeded.
        """
        on_piece = None if on_first_token is None else lambda _: on_first_token()
        answer = await self._request("a completion", seconds, "POST", "/generate", body, on_piece)
        return wire.parse_last_event(answer) if answer.startswith(b"data:") else wire.parse_object(answer)

    async def abort(self, rid: str) -> None:
        """Drops a request that nobody waits for. Succeeds for unknown ids as well."""
        await self._post("an abort", _ABORT_SECONDS, "/abort_request", {"rid": rid})

    async def pause(self) -> None:
        """Moves every running request back to the queue, where it keeps its tokens and waits for `resume`."""
        await self._post("a pause", _PAUSE_SECONDS, "/pause_generation", {"mode": "retract"})

    async def resume(self) -> None:
        """Continues; the prefix of every request is recomputed."""
        await self._post("a resume", _PAUSE_SECONDS, "/continue_generation", {})

    async def update_weights(self, directory: Path, version: WeightVersion, seconds: float) -> None:
        """Loads the weights and empties the cache. Unavailable unless the server confirms both."""
        body = {
            "model_path": str(directory),
            "weight_version": str(version),
            "flush_cache": True,
            "abort_all_requests": False,
        }
        async with _deadline("loading weights", seconds):
            content = json.dumps(body).encode()
            answer = await self._connections.request("POST", "/update_weights_from_disk", content)
        if not answer.is_success or wire.parse_object(answer.body).get("success") is not True:
            raise Unavailable(f"SGLang did not load {version}: {wire.read_message(answer.body)}")

    async def replace_weights(
        self, directory: Path, version: WeightVersion, load_seconds: float, check: Check | None = None
    ) -> float:
        """Replaces the weights between two tokens of the requests in flight: pause, load, flush, check, resume. `check`
        raises if the server's processes do not hold them.

        Returns the seconds for which no token was sampled. Any error leaves the server paused with unknown weights
        and cache, so that it must be restarted: a refused flush, for one, comes after the weights have changed.
        """
        started = time.monotonic()
        await self.pause()
        await self.update_weights(directory, version, load_seconds)
        loaded = (await self.model_info()).get("weight_version")
        if loaded != str(version):
            raise Unavailable(f"SGLang reports weights {loaded!r} after it loaded {version}")
        if check is not None:
            await check(self)
        await self.resume()
        return time.monotonic() - started

    async def model_info(self) -> dict[str, Any]:
        """Contains `weight_version` and `model_path`."""
        return wire.parse_object(await self._request("model_info", _INFO_SECONDS, "GET", "/model_info"))

    async def checksums(self, seconds: float) -> dict[str, Any]:
        """Contains `ranks`: of each process the checksums of its tensors. InvalidInput where there is no such route."""
        body = json.dumps({"action": "checksum"}).encode()
        return wire.parse_object(await self._request("checksums", seconds, "POST", "/weights_checker", body))

    async def server_info(self) -> dict[str, Any]:
        """Contains `version` and `max_req_input_len`."""
        return wire.parse_object(await self._request("server_info", _INFO_SECONDS, "GET", "/server_info"))

    async def check_release(self) -> None:
        check_release((await self.server_info()).get("version"))

    async def check_listening(self, seconds: float) -> None:
        """Returns if the server has loaded its model and listens."""
        await self._request("health", seconds, "GET", "/health")

    async def check_generating(self, seconds: float) -> None:
        """Returns once a token has passed through every process of the server."""
        await self._request("a health check", seconds, "GET", "/health_generate")

    async def metrics(self, seconds: float) -> str:
        """The server's own series, in Prometheus' text format."""
        return (await self._request("metrics", seconds, "GET", "/metrics")).decode("utf-8", "replace")

    async def _post(self, what: str, seconds: float, path: str, body: dict[str, Any]) -> None:
        await self._request(what, seconds, "POST", path, json.dumps(body).encode())

    async def _request(
        self, what: str, seconds: float, method: str, path: str, body: bytes = b"", on_piece: OnPiece | None = None
    ) -> bytes:
        """The body of a success."""
        async with _deadline(what, seconds):
            answer = await self._connections.request(method, path, body, on_piece)
        if not answer.is_success:
            raise wire.error_for_status(answer.status, answer.body)
        return answer.body


@asynccontextmanager
async def _deadline(what: str, seconds: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise DeadlineExceeded(
            f"no answer from SGLang to {what} within {seconds:g} s: it may be hung or overloaded"
        ) from error


def check_release(reported: object) -> None:
    """Unavailable, naming the supported ones, unless the version the server reports is known to work."""
    match = re.match(r"(\d+)\.(\d+)\.(\d+)", reported if isinstance(reported, str) else "")
    version = tuple(map(int, match.groups())) if match else None
    if version is None or version < OLDEST or version[:2] != OLDEST[:2]:
        oldest, newest = (".".join(map(str, each)) for each in (OLDEST, NEWEST_SEEN))
        raise Unavailable(
            f"this is SGLang {reported}; supported are {oldest} to {newest} and later {OLDEST[0]}.{OLDEST[1]} releases,"
            " which replace weights under load and name the weights of every token: install one of these"
        )
