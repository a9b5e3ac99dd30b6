"""Where an engine's SGLang comes from: a child of this process, or a server that somebody else runs."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from services.rollout.config import SglangConfig
from services.rollout.engines.sglang.bundle import Bundle
from services.rollout.engines.sglang.client import SglangClient, check_release
from services.rollout.engines.sglang.launch import build_command, build_environment, check_command
from services.rollout.engines.sglang.server_process import ServerProcess
from shared.errors import Unavailable
from shared.runtime.child_process import find_free_port

_POLL_SECONDS = 0.25
_PROBE_SECONDS = 2.0


class Server(Protocol):
    """An SGLang server that can be brought to a known state."""

    @property
    def refusal(self) -> str | None:
        """Why it takes no weights from here; None when it does."""

    async def start(self, bundle: Bundle) -> SglangClient:
        """Brings the server to a state in which it serves this bundle with an empty cache, whatever it was before.

        Unavailable, with what the server said, when that cannot be had.
        """

    async def lost(self) -> str:
        """Waits until the server is known to be gone, and says how it went."""

    async def close(self) -> None:
        """Frees everything that `start` took."""


class ManagedServer:
    """A child on loopback; every start is a new process. InvalidInput when its launcher is not on this machine."""

    def __init__(self, config: SglangConfig) -> None:
        check_command(config)
        self._config = config
        self._child: ServerProcess | None = None

    @property
    def refusal(self) -> str | None:
        return None

    @property
    def pid(self) -> int | None:
        """Of the child, while there is one."""
        return self._child.pid if self._child is not None else None

    async def start(self, bundle: Bundle) -> SglangClient:
        await self._end(grace_seconds=0.0)
        port = find_free_port()
        child = self._child = await ServerProcess.start(
            build_command(self._config, bundle, port), build_environment(os.environ)
        )
        client = SglangClient(f"http://127.0.0.1:{port}")
        async with _closed_unless_up(client):
            try:
                async with asyncio.timeout(self._config.start_seconds):
                    await _until_listening(child, client)
                await _check_release(client)
            except TimeoutError as error:
                raise Unavailable(
                    f"SGLang does not listen after {self._config.start_seconds:g} s (rollout.sglang.start_seconds); "
                    f"it said:\n{child.tail()}"
                ) from error
        return client

    async def lost(self) -> str:
        if self._child is None:
            return "not started"
        return await self._child.wait()

    async def close(self) -> None:
        if self._child is not None:
            await self._child.end()

    async def _end(self, grace_seconds: float) -> None:
        if self._child is not None:
            await self._child.end(grace_seconds)


class ExternalServer:
    """A server at a URL, which must read this replica's snapshots under the same path to take weights."""

    def __init__(self, config: SglangConfig) -> None:
        self._config = config

    @property
    def refusal(self) -> str | None:
        if self._config.reads_snapshots:
            return None
        return (
            f"the SGLang server at {self._config.url} is not known to read this replica's snapshots: mount "
            "rollout.snapshots for both under the same path and say rollout.sglang.reads_snapshots=true"
        )

    async def start(self, bundle: Bundle) -> SglangClient:
        client = SglangClient(self._config.url)
        async with _closed_unless_up(client):
            await client.check_listening(_PROBE_SECONDS)
            await _check_release(client)
            await client.replace_weights(bundle.directory, bundle.version, self._config.load_seconds)
        return client

    async def lost(self) -> str:
        await asyncio.Event().wait()  # it is somebody else's: only its answers tell
        return "never"

    async def close(self) -> None:
        """Nothing of it is ours."""


@asynccontextmanager
async def _closed_unless_up(client: SglangClient) -> AsyncIterator[None]:
    try:
        yield
    except BaseException:
        client.close()
        raise


async def _check_release(client: SglangClient) -> None:
    check_release((await client.server_info()).get("version"))


async def _until_listening(child: ServerProcess, client: SglangClient) -> None:
    while True:
        if child.has_exited:
            raise Unavailable(f"SGLang ended with {await child.wait()} before it listened; it said:\n{child.tail()}")
        try:
            await client.check_listening(_PROBE_SECONDS)
            return
        except Unavailable:
            await asyncio.sleep(_POLL_SECONDS)
