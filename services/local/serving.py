"""A verifier with rollout replicas that serve one model, for as long as a block runs: no learner, no Redis."""

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from services.local.guard_line import GuardLine
from services.local.probes import http_ready
from services.local.processes import EndRank, Service, ServiceSpec, end_in_order

READY_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Serving:
    """What is served, and how: `settings` are key=value of the rollout service."""

    model: Path
    replicas: int
    folder: Path
    settings: tuple[str, ...] = ()


@asynccontextmanager
async def serving(wanted: Serving) -> AsyncIterator[tuple[str, ...]]:
    """Gives the replicas' URLs once all are ready; ends every process after the block."""
    guard = await GuardLine.start(wanted.folder / "guard.jsonl")
    services: list[Service] = []
    try:
        verifier = await _up(guard, services, [_spec(wanted, "verifier", EndRank.VERIFIER, ())])
        settings = (f"model={wanted.model.resolve()}", f"verifier_url={verifier[0].url}", *wanted.settings)
        names = [f"rollout-{number}" for number in range(1, wanted.replicas + 1)]
        specs = [_spec(wanted, name, EndRank.ROLLOUT, (f"name={name}", *settings)) for name in names]
        yield tuple(service.url for service in await _up(guard, services, specs))
    finally:
        await end_in_order(services)
        await guard.close()


async def _up(guard: GuardLine, services: list[Service], specs: Sequence[ServiceSpec]) -> list[Service]:
    started = [Service(spec, guard) for spec in specs]
    services += started
    for service in started:
        await service.start()
    for service in started:
        await service.wait_ready(READY_SECONDS)
    return started


def _spec(wanted: Serving, name: str, rank: EndRank, settings: Sequence[str]) -> ServiceSpec:
    command, url_file = name.partition("-")[0], wanted.folder / f"{name}.url"
    snapshots = (f"snapshots={wanted.folder / 'snapshots'}",) if rank is EndRank.ROLLOUT else ()
    own = ("host=127.0.0.1", "port={port}", f"url_file={url_file}", *snapshots, *settings)
    return ServiceSpec(
        name=name,
        command=(sys.executable, "-m", "services.cli", command, *(f"{command}.{setting}" for setting in own)),
        rank=rank,
        log=wanted.folder / f"{name}.jsonl",
        url_file=url_file,
        probe=http_ready,
        environment={"OMP_NUM_THREADS": "1", "REDIS_URL": ""},
        grace_seconds=5.0,
    )
