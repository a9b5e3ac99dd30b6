"""A verifier, with or without rollout replicas, that runs while a block runs: no learner, no Redis."""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from services.launcher.processes.guard import GuardProcess
from services.launcher.processes.service_processes import Service, is_ready, make_spec, stop_in_order

READY_SECONDS = 120.0
_LINE_SECONDS = 5.0
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "REDIS_URL": "", "IBTPO_TOKEN": "", "IBTPO_TOKEN_FILE": ""}
"""These services take part in no run, and listen on loopback; without a token, unless one is given."""


@asynccontextmanager
async def run_replicas(
    model: Path,
    num_replicas: int,
    folder: Path,
    verifier_url: str,
    token: str | None = None,
    config: str | Path | None = None,
    settings: Sequence[str] = (),
) -> AsyncIterator[tuple[str, ...]]:
    """Yields the URLs of replicas that serve the model, once all are ready: with the engine of `config`, a preset or a
    file, and `settings`. Logs and weights lie in `folder`. `token` is the verifier's, if it has one, and then theirs,
    too."""
    fixed = f"model={model}", f"verifier_url={verifier_url}", f"snapshots={folder / 'snapshots'}"
    names = [f"rollout-{number}" for number in range(1, num_replicas + 1)]
    async with _run(folder, names, (*settings, *fixed), config, token=token) as urls:
        yield urls


@asynccontextmanager
async def run_verifier(
    folder: Path, config: str | Path | None = None, settings: Sequence[str] = ()
) -> AsyncIterator[str]:
    """Yields the URL of a verifier with the kinds of `config`, a preset or a file, and `settings`, once it is ready.
    Its log lies in `folder`."""
    async with _run(folder, ["verifier"], settings, config) as (url,):
        yield url


async def _say_start(services: Sequence[Service]) -> None:
    """Without a terminal, where commands show more, says now and then what is being started."""
    while not sys.stderr.isatty():
        await asyncio.sleep(_LINE_SECONDS)
        waiting = "; ".join(one.doing for one in services if not one.is_ready)
        print(f"starting {waiting}", file=sys.stderr, flush=True)


@asynccontextmanager
async def _run(
    folder: Path,
    names: Sequence[str],
    settings: Sequence[str] = (),
    config: str | Path | None = None,
    token: str | None = None,
) -> AsyncIterator[tuple[str, ...]]:
    """Yields the URLs of these services once all are ready; one that dies later is not restarted."""
    guard = await GuardProcess.start(folder / "guard.jsonl")
    services = []
    try:
        for name in names:
            log, url_file = folder / f"{name}.jsonl", folder / f"{name}.url"
            environment = _ENVIRONMENT | {"IBTPO_TOKEN": token or ""}
            spec = make_spec(name, log, url_file, is_ready, settings, environment, config=config, grace_seconds=5.0)
            services.append(Service(spec, guard, print))
            await services[-1].start()
        saying = asyncio.create_task(_say_start(services))
        try:
            for service in services:
                await service.wait_ready(READY_SECONDS)
        finally:
            saying.cancel()
        yield tuple(service.url for service in services)
    finally:
        await stop_in_order(services)
        await guard.close()
