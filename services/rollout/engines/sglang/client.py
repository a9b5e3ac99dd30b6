"""A replica's calls of SGLang's HTTP interface, each with a deadline."""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from services.rollout.engines.sglang import wire_format as wire
from services.rollout.engines.sglang.connections import Answer, Connections
from shared.errors import DeadlineExceeded, Unavailable
from shared.tree.draw import WeightVersion

OLDEST = (0, 5, 21)
"""0.5.20 dies when weights are replaced while requests wait: it empties its cache only when idle."""
NEWEST_SEEN = (0, 5, 23)
"""The newest release that the tests ran against; later releases of the same minor series are accepted."""

_INFO_SECONDS = 20.0
_PAUSE_SECONDS = 60.0
_ABORT_SECONDS = 5.0


class UnsupportedRelease(Unavailable):
    """This SGLang lacks what the engine needs."""


class NotLoaded(Unavailable):
    """A weight update did not clearly succeed: the server's weights and cache are unknown."""


class SglangClient:
    """One server. Nothing is retried here: the callers know what is safe to repeat."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._connections = Connections(url)

    def close(self) -> None:
        """Closes every connection: requests in flight end as Unreachable."""
        self._connections.close()

    async def generate(self, body: bytes, seconds: float, on_first_token: Callable[[], None] | None) -> dict[str, Any]:
        """The answer to a completion request; with `on_first_token`, `body` must ask for a stream.

        Raises InvalidInput if the server refuses it, Overloaded if its queue is full, Unreachable or
        DeadlineExceeded.
        """
        async with _deadline("a completion", seconds):
            if on_first_token is None:
                return wire.parse_object((await self._request("POST", "/generate", body)).body)
            answer = await self._request("POST", "/generate", body, lambda _: on_first_token())
        return (
            wire.parse_last_event(answer.body) if answer.body.startswith(b"data:") else wire.parse_object(answer.body)
        )

    async def abort(self, rid: str) -> None:
        """Drops a request that nobody waits for. Succeeds for unknown ids as well."""
        async with _deadline("an abort", _ABORT_SECONDS):
            await self._post("/abort_request", {"rid": rid})

    async def pause(self) -> None:
        """Moves every running request back to the queue, where it keeps its tokens and waits for `resume`."""
        async with _deadline("a pause", _PAUSE_SECONDS):
            await self._post("/pause_generation", {"mode": "retract"})

    async def resume(self) -> None:
        """Continues; the prefix of every request is recomputed."""
        async with _deadline("a resume", _PAUSE_SECONDS):
            await self._post("/continue_generation", {})

    async def update_weights(self, directory: Path, version: WeightVersion, seconds: float) -> None:
        """Loads the weights and empties the cache. NotLoaded unless the server confirms both."""
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
            raise NotLoaded(f"SGLang did not load {version}: {wire.read_message(answer.body)}")

    async def replace_weights(self, directory: Path, version: WeightVersion, load_seconds: float) -> float:
        """Replaces the weights between two tokens of the requests in flight: pause, load, flush, check, resume.

        Returns the seconds for which no token was sampled. Any error leaves the server paused with unknown weights
        and cache, so that it must be restarted: a refused flush, for one, comes after the weights have changed.
        """
        started = time.monotonic()
        await self.pause()
        await self.update_weights(directory, version, load_seconds)
        loaded = (await self.model_info()).get("weight_version")
        if loaded != str(version):
            raise NotLoaded(f"SGLang reports weights {loaded!r} after it loaded {version}")
        await self.resume()
        return time.monotonic() - started

    async def model_info(self) -> dict[str, Any]:
        """Contains `weight_version` and `model_path`."""
        async with _deadline("model_info", _INFO_SECONDS):
            return wire.parse_object((await self._request("GET", "/model_info")).body)

    async def server_info(self) -> dict[str, Any]:
        """Contains `version` and `max_req_input_len`."""
        async with _deadline("server_info", _INFO_SECONDS):
            return wire.parse_object((await self._request("GET", "/server_info")).body)

    async def check_release(self) -> None:
        """Raises UnsupportedRelease unless the server's release is known to work."""
        check_release((await self.server_info()).get("version"))

    async def check_listening(self, seconds: float) -> None:
        """Returns if the server has loaded its model and listens."""
        async with _deadline("health", seconds):
            await self._request("GET", "/health")

    async def check_generating(self, seconds: float) -> None:
        """Returns once a token has passed through every process of the server."""
        async with _deadline("a health check", seconds):
            await self._request("GET", "/health_generate")

    async def metrics(self, seconds: float) -> str:
        """The server's own series, in Prometheus' text format."""
        async with _deadline("metrics", seconds):
            return (await self._request("GET", "/metrics")).body.decode("utf-8", "replace")

    async def _post(self, path: str, body: dict[str, Any]) -> Answer:
        return await self._request("POST", path, json.dumps(body).encode())

    async def _request(
        self, method: str, path: str, body: bytes = b"", on_piece: Callable[[bytes], None] | None = None
    ) -> Answer:
        answer = await self._connections.request(method, path, body, on_piece)
        if not answer.is_success:
            raise wire.error_for_status(answer.status, answer.body)
        return answer


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
    """Raises UnsupportedRelease, naming the supported ones, unless the version the server reports is known to work."""
    match = re.match(r"(\d+)\.(\d+)\.(\d+)", reported if isinstance(reported, str) else "")
    version = tuple(map(int, match.groups())) if match else None
    if version is None or version < OLDEST or version[:2] != OLDEST[:2]:
        oldest, newest = (".".join(map(str, each)) for each in (OLDEST, NEWEST_SEEN))
        raise UnsupportedRelease(
            f"this is SGLang {reported}; supported are {oldest} to {newest} and later "
            f"{OLDEST[0]}.{OLDEST[1]} releases, "
            "which replace weights under load and name the weights of every token: install one of these"
        )
