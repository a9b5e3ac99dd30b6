"""A verifier with rollout replicas that serve one model, for as long as a block runs: no learner, no Redis."""

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from services.launcher.processes.guard_line import GuardLine
from services.launcher.processes.probes import http_ready
from services.launcher.processes.service_processes import EndRank, Service, ServiceSpec, end_in_order

READY_SECONDS = 120.0
_ALONE = {"OMP_NUM_THREADS": "1", "REDIS_URL": "", "IBTPO_TOKEN": "", "IBTPO_TOKEN_FILE": ""}
"""On loopback, for one command: no run to take part in, and no token to ask for."""


@dataclass(frozen=True, slots=True)
class Serving:
    """What is served, and how many replicas serve it; `folder` takes their logs."""

    model: Path
    replicas: int
    folder: Path


@asynccontextmanager
async def serving(wanted: Serving) -> AsyncIterator[tuple[str, ...]]:
    """Gives the URLs of replicas that serve the model, once all are ready; ends every process after the block."""
    async with _Stage.open(wanted.folder) as stage:
        (verifier,) = await stage.up("verifier")
        settings = (
            f"model={wanted.model.resolve()}",
            f"verifier_url={verifier}",
            f"snapshots={wanted.folder / 'snapshots'}",
        )
        names = [f"rollout-{number}" for number in range(1, wanted.replicas + 1)]
        yield await stage.up(*names, settings=settings)


@asynccontextmanager
async def verifying(folder: Path) -> AsyncIterator[str]:
    """Gives the URL of a verifier that is ready; ends it after the block."""
    async with _Stage.open(folder) as stage:
        (url,) = await stage.up("verifier")
        yield url


class _Stage:
    """The services that are up for a while."""

    def __init__(self, folder: Path, guard: GuardLine) -> None:
        self._folder = folder
        self._guard = guard
        self._services: list[Service] = []

    @classmethod
    @asynccontextmanager
    async def open(cls, folder: Path) -> AsyncIterator["_Stage"]:
        """An empty one; what is brought up on it ends with the block."""
        guard = await GuardLine.start(folder / "guard.jsonl")
        stage = cls(folder, guard)
        try:
            yield stage
        finally:
            await end_in_order(stage._services)
            await guard.close()

    async def up(self, *names: str, settings: Sequence[str] = ()) -> tuple[str, ...]:
        """Starts these services and gives their URLs once they are ready."""
        started = [Service(self._spec(name, settings), self._guard, _unheard) for name in names]
        self._services += started
        for service in started:
            await service.start()
        for service in started:
            await service.wait_ready(READY_SECONDS)
        return tuple(service.url for service in started)

    def _spec(self, name: str, settings: Sequence[str]) -> ServiceSpec:
        command, url_file = name.partition("-")[0], self._folder / f"{name}.url"
        own = ("host=127.0.0.1", "port={port}", f"url_file={url_file}", *settings)
        return ServiceSpec(
            name=name,
            command=(
                sys.executable,
                "-m",
                "services.launcher.cli",
                command,
                *(f"{command}.{setting}" for setting in own),
            ),
            rank=EndRank[command.upper()],
            log=self._folder / f"{name}.jsonl",
            url_file=url_file,
            probe=http_ready,
            environment=_ALONE,
            grace_seconds=5.0,
        )


def _unheard(_: str) -> None:
    """Restarts are not told: a service that dies here ends the command."""
