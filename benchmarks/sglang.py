"""What a rollout costs beyond its SGLang server, how many prefixes it shares, how long new weights stop it.

python -m benchmarks.sglang concurrency   a server that only waits: CPU of 1 to 512 trees at once (2 minutes)
python -m benchmarks.sglang clients       the same server: CPU of one HTTP request, three clients (1 minute)
python -m benchmarks.sglang overhead      the real server: trees against its bare requests, alternating (4 minutes)
python -m benchmarks.sglang reuse         the real server: prefix tokens shared, with room and without (5 minutes)
python -m benchmarks.sglang pause         the real server: new weights under load (1 minute)
python -m benchmarks.sglang faults        the real server: its processes killed and stopped under load (4 minutes)

The real server is the one that `make sglang-cpu` installs. Rollouts run in this process, without Redis and HTTP.
"""

import argparse
import asyncio
import json
import os
import random
import resource
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any
from zlib import crc32

import httpx
from prometheus_client import CollectorRegistry

from services.demo.difficulty import Difficulty
from services.demo.expressions import generate, prompt_of
from services.demo.task import checkpoint_directory
from services.rollout.config import SglangConfig
from services.rollout.engines.engine import Completion, Request, Sampling
from services.rollout.engines.sglang import ManagedServer, SglangEngine, SglangMetrics
from services.rollout.engines.sglang.connections import Connections
from services.rollout.grower import TreeGrower
from services.rollout.rewards import Reward
from services.rollout.vocabulary import Vocabulary
from shared.protocol.task import Growth, Task
from shared.protocol.tree import TreeUsage
from shared.tree.draw import WeightVersion
from shared.tree.samplers import AnySampler, EntropySampler, FixedWidthSampler, IBSampler

SIMULATED = (sys.executable, "tests/rollout/sglang/contract_server.py")
REAL = (".venv-sglang/bin/python", "-m", "sglang_cpu")
FIRST = WeightVersion(1, 1)


class CoinRewards:
    """One answer in two is right, without a verifier."""

    async def reward(self, kind: str, response: str, answer_key: dict[str, Any]) -> Reward:
        return Reward(float(crc32(response.encode()) % 2))


@dataclass(slots=True)
class Rollout:
    """A grower over an engine, with its metrics."""

    engine: SglangEngine
    server: ManagedServer
    registry: CollectorRegistry
    vocabulary: Vocabulary

    def value(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0

    async def grow(self, tasks: list[Task], at_once: int) -> list[TreeUsage]:
        """Grows a tree for every task, `at_once` at a time; returns what each took."""
        grower, waiting, usages = TreeGrower(self.engine, CoinRewards(), "benchmark"), iter(tasks), []

        async def grow_remaining() -> None:
            for task in waiting:
                usages.append((await grower.grow(task, self.vocabulary)).usage)

        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(grow_remaining())
        return usages


@asynccontextmanager
async def rollout(command: tuple[str, ...], *arguments: str, **settings: Any) -> AsyncIterator[Rollout]:
    """A rollout of the demo's policy with its own server."""
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory())) / "policy"
        directory.mkdir()
        for path in checkpoint_directory().iterdir():
            if path.suffix != ".md":
                (directory / path.name).symlink_to(path)
        config = SglangConfig(command=command, arguments=arguments, max_requests=4096, **settings)
        registry, server = CollectorRegistry(), ManagedServer(config)
        engine = SglangEngine(config, server, SglangMetrics(registry))
        stack.push_async_callback(engine.close)
        await engine.load(directory, FIRST)
        yield Rollout(engine, server, registry, Vocabulary.load(directory))


def tasks_of(vocabulary: Vocabulary, number: int, growth: Growth, seed: int, repeat: int = 1) -> list[Task]:
    """Problems of the demo; `repeat` lengthens their prompts."""
    rng = random.Random(seed)
    prompts = [vocabulary.encode(prompt_of(generate(rng, Difficulty()))) * repeat for _ in range(number)]
    return [
        Task(
            run="b", id=str(i), problem_id=str(i), prompt_ids=prompt, kind="coin", answer_key={}, growth=growth, seed=i
        )
        for i, prompt in enumerate(prompts)
    ]


# Concurrency


async def concurrency(quick: bool) -> None:
    """CPU of the rollout per tree and per 1,000 tokens, by the number of trees in flight."""
    print("trees at once | trees | wall s | trees/s | CPU ms per tree | CPU ms per 1,000 tokens | most memory MB")
    print("---|---|---|---|---|---|---")
    growth = Growth(sampler=IBSampler(), max_tokens=600)
    server = ("--tokens=200", "--token-seconds=0.002", "--prefill-seconds=0.01", "--context=2048", "--whole-answers")
    async with rollout(SIMULATED, *server) as one:
        await one.grow(tasks_of(one.vocabulary, 8, growth, seed=99), 8)  # imports, caches
        for at_once in (1, 8, 64) if quick else (1, 8, 64, 256, 512):
            number = max(4 if at_once == 1 else 16, 2 * at_once)
            tasks = tasks_of(one.vocabulary, number, growth, seed=at_once, repeat=8)
            started, cpu = time.perf_counter(), time.process_time()
            usages = await one.grow(tasks, at_once)
            wall, cpu = time.perf_counter() - started, time.process_time() - cpu
            tokens = sum(usage.generated_tokens for usage in usages)
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(
                f"{at_once} | {number} | {wall:.1f} | {number / wall:.1f} | {1e3 * cpu / number:.1f} "
                f"| {1e6 * cpu / tokens:.1f} | {memory:.0f}",
                flush=True,
            )


# Clients


async def clients(quick: bool) -> None:
    """CPU of one request of half a second with each client."""
    body = json.dumps({"input_ids": [4] * 100, "sampling_params": {"max_new_tokens": 50}}).encode()
    print("client | in flight | CPU ms per request")
    print("---|---|---")
    async with rollout(SIMULATED, "--token-seconds=0.01", "--whole-answers") as one:
        for in_flight in (64,) if quick else (64, 512):
            for name, opened in CLIENTS.items():
                async with opened(one.engine.server.url) as ask:
                    await asyncio.gather(*(ask(body) for _ in range(in_flight)))  # connections open
                    cpu = time.process_time()
                    for _ in range(3):
                        await asyncio.gather(*(ask(body) for _ in range(in_flight)))
                    cpu = time.process_time() - cpu
                print(f"{name} | {in_flight} | {1e3 * cpu / (3 * in_flight):.2f}", flush=True)


Ask = Callable[[bytes], Awaitable[object]]


@asynccontextmanager
async def one_httpx_client(url: str) -> AsyncIterator[Ask]:
    unbounded = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(limits=unbounded, trust_env=False, timeout=60) as client:
        yield lambda body: client.post(f"{url}/generate", content=body)


@asynccontextmanager
async def httpx_client_per_connection(url: str) -> AsyncIterator[Ask]:
    idle: list[httpx.AsyncClient] = []

    async def ask(body: bytes) -> object:
        client = idle.pop() if idle else httpx.AsyncClient(trust_env=False, timeout=60, verify=False)
        answer = await client.post(f"{url}/generate", content=body)
        idle.append(client)
        return answer

    yield ask
    await asyncio.gather(*(client.aclose() for client in idle))


@asynccontextmanager
async def own_connections(url: str) -> AsyncIterator[Ask]:
    connections = Connections(url)
    yield lambda body: connections.request("POST", "/generate", body)
    connections.close()


CLIENTS = {
    "httpx, one client": one_httpx_client,
    "httpx, a client per connection": httpx_client_per_connection,
    "connections.py": own_connections,
}


# Overhead


class Recording:
    """An engine that records the requests to another one and the lengths of its answers."""

    def __init__(self, engine: SglangEngine) -> None:
        self._engine = engine
        self.requests: list[tuple[Request, int]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    async def complete(self, request: Request) -> Completion:
        completion = await self._engine.complete(request)
        self.requests.append((request, len(completion.token_ids)))
        return completion


async def record(one: Rollout, tasks: list[Task]) -> list[list[list[bytes]]]:
    """The bare requests of each tree, round by round. Greedy: the requested prefixes are those that get computed."""
    trees = []
    for task in tasks:
        recording = Recording(one.engine)
        grown = await TreeGrower(recording, CoinRewards(), "benchmark").grow(task, one.vocabulary)
        bodies = [_bare(request) for request, _ in recording.requests]
        first = task.growth.sampler.initial_draws
        assert len(bodies) == len(grown.draws)
        trees.append([bodies[:first], *([body] for body in bodies[first:])])
    return trees


def _bare(request: Request) -> bytes:
    params = {
        "max_new_tokens": request.max_tokens,
        "temperature": 0,
        "stop_token_ids": sorted(request.stop_ids),
    }
    body = {"input_ids": request.token_ids, "sampling_params": params, "return_logprob": True, "extra_key": "bare"}
    return json.dumps(body).encode()


async def ask_bare(connections: Connections, trees: list[list[list[bytes]]], at_once: int) -> None:
    """Sends the same requests in the same order, round by round within a tree, and nothing else."""
    waiting = iter(trees)

    async def send_remaining() -> None:
        for rounds in waiting:
            for bodies in rounds:
                await asyncio.gather(*(connections.request("POST", "/generate", body) for body in bodies))

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(send_remaining())


async def flush(connections: Connections) -> None:
    """Empties the cache, so that both sides begin alike."""
    for _ in range(100):
        if (await connections.request("POST", "/flush_cache")).is_success:
            return
        await asyncio.sleep(0.05)
    raise RuntimeError("the server's cache could not be flushed")


async def overhead(quick: bool) -> None:
    """Seconds for the same requests with and without the rollout."""
    print("trees at once | repeats | bare s (median) | rollout s (median) | rollout / bare: min, median, max")
    print("---|---|---|---|---")
    growth = Growth(sampler=IBSampler(), max_tokens=48, temperature=0.0)
    async with rollout(REAL) as one:
        connections = Connections(one.engine.server.url)
        for at_once in (8, 32):
            tasks = tasks_of(one.vocabulary, 2 * at_once, growth, seed=at_once)
            trees = await record(one, tasks)
            bare, ours = [], []
            for _ in range(3 if quick else 9):
                await flush(connections)
                started = time.perf_counter()
                await ask_bare(connections, trees, at_once)
                bare.append(time.perf_counter() - started)
                await flush(connections)
                started = time.perf_counter()
                await one.grow(tasks, at_once)
                ours.append(time.perf_counter() - started)
            ratios = sorted(b / a for a, b in zip(bare, ours, strict=True))
            print(
                f"{at_once} | {len(bare)} | {median(bare):.2f} | {median(ours):.2f} "
                f"| {ratios[0]:.3f}, {median(ratios):.3f}, {ratios[-1]:.3f}",
                flush=True,
            )
        connections.close()


# Reuse


async def reuse(quick: bool) -> None:
    """The share of reusable prefix tokens that came from the cache."""
    samplers: dict[str, AnySampler] = {
        "ib (4, 9, 1, 1)": IBSampler(),
        "entropy tree (6, 2, 1, 2)": EntropySampler(),
        "fixed width": FixedWidthSampler(),
    }
    print("server | sampler | trees at once | trees | reusable tokens | from the cache | share")
    print("---|---|---|---|---|---|---")
    number = 16 if quick else 64
    caches: tuple[tuple[str, tuple[str, ...], tuple[int, ...]], ...] = (
        ("16,384 tokens of cache", (), (1, 32)),
        ("1,024 tokens", ("--max-total-tokens=1024",), (32,)),
        ("1,024 tokens, requests in order of arrival", ("--max-total-tokens=1024", "--schedule-policy=fcfs"), (32,)),
    )
    for name, arguments, concurrencies in caches:
        async with rollout(REAL, *arguments) as one:
            for sampler_name, sampler in samplers.items():
                for at_once in concurrencies:
                    growth = Growth(sampler=sampler, max_tokens=48)
                    usages = await one.grow(tasks_of(one.vocabulary, number, growth, seed=at_once), at_once)
                    reusable = sum(usage.reusable_tokens for usage in usages)
                    cached = sum(usage.cached_tokens for usage in usages)
                    share = cached / reusable
                    row = f"{name} | {sampler_name} | {at_once} | {number} | {reusable} | {cached} | {share:.3f}"
                    print(row, flush=True)


# Pause


async def pause(quick: bool) -> None:
    """New weights while requests are sampled."""
    print("requests in flight | loads | pause ms: min, median, max | requests lost")
    print("---|---|---|---")
    async with rollout(REAL) as one:
        directory = checkpoint_directory()
        number = 1
        for in_flight in (0, 8, 32):
            busy = [asyncio.create_task(_request_forever(one, i)) for i in range(in_flight)]
            await asyncio.sleep(1.0)
            pauses = []
            for _ in range(5 if quick else 20):
                number += 1
                before = one.value("ibtpo_rollout_engine_pause_seconds_sum")
                await one.engine.load(directory, WeightVersion(1, number))
                pauses.append(1e3 * (one.value("ibtpo_rollout_engine_pause_seconds_sum") - before))
                await asyncio.sleep(0.2)
            for task in busy:
                task.cancel()
            lost = sum(isinstance(result, Exception) for result in await asyncio.gather(*busy, return_exceptions=True))
            print(
                f"{in_flight} | {len(pauses)} | {min(pauses):.0f}, {median(pauses):.0f}, {max(pauses):.0f} | {lost}",
                flush=True,
            )


async def _request_forever(one: Rollout, index: int) -> None:
    while True:
        await one.engine.complete(Request((4, 2 + index % 18, 5), 200, Sampling(), frozenset(), index))


# Faults


async def faults(quick: bool) -> None:
    """Seconds until a lost server is noticed, and until all of its requests are answered."""
    print("process | signal | noticed after s | all answered after s | completions lost")
    print("---|---|---|---|---")
    targets = [
        (name, number) for number in (signal.SIGKILL, signal.SIGSTOP) for name in ("main", "scheduler", "detokenizer")
    ]
    async with rollout(REAL, health_seconds=2.0, hang_seconds=8.0) as one:
        for name, number in targets[:2] if quick else targets:
            endless = [Request((4, 5, 6 + i), 200, Sampling(), frozenset(), i) for i in range(8)]
            completions = [asyncio.create_task(one.engine.complete(request)) for request in endless]
            await asyncio.sleep(0.3)
            killed_at = time.perf_counter()
            os.kill(_process(one.server.pid, name), number)
            while one.engine.version is not None:
                await asyncio.sleep(0.02)
            noticed = time.perf_counter() - killed_at
            results = await asyncio.gather(*completions, return_exceptions=True)
            answered, lost = time.perf_counter() - killed_at, sum(isinstance(result, Exception) for result in results)
            print(f"{name} | {number.name} | {noticed:.1f} | {answered:.1f} | {lost}", flush=True)


def _process(leader: int | None, name: str) -> int:
    """The leader of the server's process group, or a process of it by name."""
    assert leader is not None
    if name == "main":
        return leader
    group = [entry for entry in Path("/proc").iterdir() if entry.name.isdecimal() and _group_of(entry) == leader]
    return next(int(entry.name) for entry in group if name in (entry / "cmdline").read_text())


def _group_of(entry: Path) -> int | None:
    try:
        return int((entry / "stat").read_text().rpartition(")")[2].split()[2])
    except OSError:  # it ended meanwhile
        return None


TABLES = {
    "concurrency": concurrency,
    "clients": clients,
    "overhead": overhead,
    "reuse": reuse,
    "pause": pause,
    "faults": faults,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--quick", action="store_true")
    chosen = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    asyncio.run(TABLES[chosen.table](chosen.quick))


if __name__ == "__main__":
    sys.exit(main())
