"""A verifier, with or without rollout replicas, that runs while a block runs: no learner, no Redis."""

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from services.launcher.processes.guard_process import GuardProcess
from services.launcher.processes.probes import is_ready
from services.launcher.processes.service_processes import Service, ServiceSpec, StopOrder, stop_in_order

READY_SECONDS = 120.0
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "REDIS_URL": "", "IBTPO_TOKEN": "", "IBTPO_TOKEN_FILE": ""}
"""These services take part in no run, and listen on loopback, without a token."""


@asynccontextmanager
async def run_replicas(
    model: Path, num_replicas: int, folder: Path, verifier_url: str
) -> AsyncIterator[tuple[str, ...]]:
    """Yields the URLs of replicas that serve the model, once all are ready. Logs and weights lie in `folder`."""
    settings = f"model={model}", f"verifier_url={verifier_url}", f"snapshots={folder / 'snapshots'}"
    async with _TemporaryServices.open(folder) as services:
        yield await services.start(*(f"rollout-{number}" for number in range(1, num_replicas + 1)), settings=settings)


@asynccontextmanager
async def run_verifier(folder: Path, config: str | Path | None = None) -> AsyncIterator[str]:
    """Yields the URL of a verifier with the kinds of `config`, a preset or a file, once it is ready. Its log lies in
    `folder`."""
    async with _TemporaryServices.open(folder) as services:
        (url,) = await services.start("verifier", options=("--config", str(config)) if config else ())
        yield url


class _TemporaryServices:
    """Services that stop when their block ends."""

    def __init__(self, folder: Path, guard: GuardProcess) -> None:
        self._folder = folder
        self._guard = guard
        self._services: list[Service] = []

    @classmethod
    @asynccontextmanager
    async def open(cls, folder: Path) -> AsyncIterator["_TemporaryServices"]:
        """No service yet; stops those that the block starts."""
        guard = await GuardProcess.start(folder / "guard.jsonl")
        services = cls(folder, guard)
        try:
            yield services
        finally:
            await stop_in_order(services._services)
            await guard.close()

    async def start(self, *names: str, settings: Sequence[str] = (), options: Sequence[str] = ()) -> tuple[str, ...]:
        """Starts these services; returns their URLs once they are ready."""
        started = [Service(self._make_spec(name, settings, options), self._guard, _ignore) for name in names]
        self._services += started
        for service in started:
            await service.start()
        for service in started:
            await service.wait_ready(READY_SECONDS)
        return tuple(service.url for service in started)

    def _make_spec(self, name: str, settings: Sequence[str], options: Sequence[str]) -> ServiceSpec:
        command, url_file = name.partition("-")[0], self._folder / f"{name}.url"
        every = ("host=127.0.0.1", "port={port}", f"url_file={url_file}", *settings)
        arguments = (command, *options, *(f"{command}.{setting}" for setting in every))
        return ServiceSpec(
            name=name,
            command=(sys.executable, "-m", "services.launcher.cli", *arguments),
            stop_order=StopOrder[command.upper()],
            log=self._folder / f"{name}.jsonl",
            url_file=url_file,
            probe=is_ready,
            environment=_ENVIRONMENT,
            grace_seconds=5.0,
        )


def _ignore(_: str) -> None:
    """Nothing is restarted here: a service that dies ends the command."""
