"""The SGLang server of an engine: a child of this process, or an external one."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from services.rollout.config import SglangConfig
from services.rollout.engines.sglang.bundle import Bundle
from services.rollout.engines.sglang.client import SglangClient
from services.rollout.engines.sglang.launch import build_command, build_environment, check_command
from services.rollout.engines.sglang.server_process import ServerProcess
from shared.errors import Unavailable
from shared.runtime.child_process import find_free_port

_POLL_SECONDS = 0.25
_PROBE_SECONDS = 2.0


class Server(Protocol):
    """An SGLang server that can be brought to a known state."""

    url: str
    """Where it listens; empty before the first start."""
    refusal: str | None
    """Why it cannot take weights from this replica; None if it can."""

    async def start(self, bundle: Bundle) -> SglangClient:
        """Makes the server serve this bundle with an empty cache, whatever its state was.

        Unavailable, with the server's last output, if it cannot.
        """

    async def wait_until_lost(self) -> str:
        """Waits until the server is known to have ended; returns how."""

    async def close(self) -> None:
        """Frees everything that `start` took."""


class ManagedServer:
    """A child that listens on loopback; every start is a new process. InvalidInput if this host has no launcher."""

    def __init__(self, config: SglangConfig) -> None:
        check_command(config)
        self._config = config
        self._process: ServerProcess | None = None
        self.url = ""
        self.refusal: str | None = None

    @property
    def pid(self) -> int | None:
        """Of the child; None before the first start."""
        return self._process.pid if self._process is not None else None

    async def start(self, bundle: Bundle) -> SglangClient:
        if self._process is not None:
            await self._process.stop(grace_seconds=0.0)
        port = find_free_port()
        self.url = f"http://127.0.0.1:{port}"
        process = self._process = await ServerProcess.start(
            build_command(self._config, bundle, port), build_environment(os.environ)
        )
        client = SglangClient(self.url)
        async with _close_on_error(client, process):
            try:
                async with asyncio.timeout(self._config.start_seconds):
                    await _wait_until_listening(process, client)
                await client.check_release()
                process.note_shared_files()
            except TimeoutError as error:
                raise Unavailable(
                    f"SGLang does not listen after {self._config.start_seconds:g} s (rollout.sglang.start_seconds); "
                    f"its last output:\n{process.last_output()}"
                ) from error
        return client

    async def wait_until_lost(self) -> str:
        if self._process is None:
            return "not started"
        return await self._process.wait()

    async def close(self) -> None:
        if self._process is not None:
            await self._process.stop()


class ExternalServer:
    """A server at a URL, which must read this replica's snapshots under the same path to take weights."""

    def __init__(self, config: SglangConfig) -> None:
        self._load_seconds = config.load_seconds
        self.url = config.url
        self.refusal: str | None = None
        if not config.reads_snapshots:
            self.refusal = (
                f"the SGLang server at {config.url} may not see this replica's snapshots: mount rollout.snapshots "
                "under the same path for both, then set rollout.sglang.reads_snapshots=true"
            )

    async def start(self, bundle: Bundle) -> SglangClient:
        client = SglangClient(self.url)
        async with _close_on_error(client):
            await client.check_listening(_PROBE_SECONDS)
            await client.check_release()
            await client.replace_weights(bundle.directory, bundle.version, self._load_seconds)
        return client

    async def wait_until_lost(self) -> str:
        await asyncio.Event().wait()  # not our process: only failed requests tell
        return "never"

    async def close(self) -> None:
        """Nothing: the server is not ours."""


@asynccontextmanager
async def _close_on_error(client: SglangClient, process: ServerProcess | None = None) -> AsyncIterator[None]:
    try:
        yield
    except BaseException:
        client.close()
        if process is not None:
            await process.stop(grace_seconds=0.0)  # it has nothing yet that could end well
        raise


async def _wait_until_listening(process: ServerProcess, client: SglangClient) -> None:
    while True:
        if process.has_exited:
            ending = await process.wait()
            raise Unavailable(
                f"SGLang ended with {ending} before it listened; its last output:\n{process.last_output()}"
            )
        try:
            await client.check_listening(_PROBE_SECONDS)
            return
        except Unavailable:
            await asyncio.sleep(_POLL_SECONDS)
