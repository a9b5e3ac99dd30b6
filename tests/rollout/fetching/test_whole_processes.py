"""A publisher and replicas as processes, and whatever may befall them, in any order: what is served was published."""

import contextlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from services.rollout.config import RolloutConfig
from shared.runtime.child_process import find_free_port
from tests.rollout.fetching.parts import PLENTY, CuttingProxy
from tests.waiting import wait_until_async

pytestmark = pytest.mark.timeout(330)
HERE = Path(__file__).parent
NAMES = ("a", "b", "c")


class Process:
    """One that may be frozen and killed."""

    def __init__(self, log: Path, script: str, *arguments: str, **more: int) -> None:
        command = [sys.executable, str(HERE / script), *arguments]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
        self.is_frozen = False
        with log.open("ab") as errors:
            self._process = subprocess.Popen(command, env=environment, stderr=errors, text=True, **more)

    @property
    def pid(self) -> int:
        return self._process.pid

    def write(self, line: str) -> None:
        assert self._process.stdin is not None
        print(line, file=self._process.stdin, flush=True)

    def freeze(self) -> None:
        self.is_frozen = True
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        self.is_frozen = False
        os.kill(self.pid, signal.SIGCONT)

    def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        self.thaw()
        self._process.send_signal(number)
        self._process.wait(20)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


class Run:
    """The processes of one run, and what is known of it."""

    def __init__(self, directory: Path, redis: str, learner_port: int, proxied: str) -> None:
        self._directory, self._redis = directory, redis
        self._port, self._proxied = learner_port, proxied
        self._truth, self._log = directory / "truth", directory / "log"
        self.generation = 0
        self.publisher: Process | None = None
        self.replicas: dict[str, Process] = {}
        self.ports = {name: find_free_port() for name in NAMES}

    def start_publisher(self) -> None:
        self.generation += 1
        arguments = (self._redis, self._directory / "published", self._port, self.generation, self._truth)
        self.publisher = Process(self._log, "publisher_process.py", *map(str, arguments), stdin=subprocess.PIPE)
        self.publish("1.0")

    def publish(self, what: str) -> None:
        if self.publisher is not None and not self.publisher.is_frozen:
            self.publisher.write(what)

    def join(self, name: str) -> None:
        if name not in self.replicas:
            config = RolloutConfig(
                run="r", name=name, port=self.ports[name], redis_url=self._redis, learner_url=self._proxied,
                snapshots=self._directory / "snapshots", grace_seconds=1.0,
            )  # fmt: skip
            self.replicas[name] = Process(self._log, "replica_process.py", config.model_dump_json())

    def limit_files(self, name: str, num_bytes: int) -> None:
        """As a disk that is full; `PLENTY`: no more."""
        if name in self.replicas:
            hard = resource.prlimit(self.replicas[name].pid, resource.RLIMIT_FSIZE)[1]
            resource.prlimit(self.replicas[name].pid, resource.RLIMIT_FSIZE, (num_bytes, hard))

    def flip_a_byte(self, name: str, version: str, rng: random.Random) -> None:
        """Of a version on its disk, which its engine has read or is yet to find; `*`: of any."""
        found = self._directory.glob(f"snapshots/r/{name}/{version}/*")
        files = [path for path in found if path.is_file() and path.stat().st_size]
        if files:
            path = rng.choice(sorted(files))
            data = bytearray(path.read_bytes())
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            path.write_bytes(data)

    def published(self) -> dict[str, str]:
        """The bits of each version."""
        lines = self._truth.read_text().splitlines() if self._truth.exists() else []
        return dict(json.loads(line) for line in lines)

    async def served(self, http: httpx.AsyncClient, name: str) -> tuple[str, str, str] | None:
        """Version, bits and problem of one that answers."""
        try:
            answer = await http.get(f"http://127.0.0.1:{self.ports[name]}/served", timeout=2.0)
        except httpx.HTTPError:
            return None
        version, digest, problem = answer.json()
        return version, digest, problem

    async def check(self, http: httpx.AsyncClient) -> None:
        """Whatever is served was published."""
        for name in sorted(self.replicas):
            found = None if self.replicas[name].is_frozen else await self.served(http, name)
            if found and found[0]:
                assert self.published().get(found[0]) == found[1], (name, found)

    async def is_caught_up(self, http: httpx.AsyncClient) -> bool:
        newest = list(self.published().items())[-1:]
        found = [await self.served(http, name) for name in sorted(self.replicas)]
        return bool(newest) and all(one and (one[0], one[1]) == newest[0] for one in found)

    def story(self) -> str:
        """What its processes said last, where they have not caught up."""
        return f"the newest of {sorted(self.published())} is everywhere; {self._log.read_text()[-3000:]}"

    def end(self) -> None:
        for process in [*self.replicas.values(), *([self.publisher] if self.publisher else [])]:
            process.end()
        self.replicas, self.publisher = {}, None


@pytest.fixture
async def proxy(learner_port: int) -> AsyncIterator[tuple[CuttingProxy, str]]:
    one = CuttingProxy(f"http://127.0.0.1:{learner_port}")
    async with one.serve() as url:
        yield one, url


@pytest.fixture
def learner_port() -> int:
    return find_free_port()


@pytest.fixture
def run(tmp_path: Path, redis_url: str, learner_port: int, proxy: tuple[CuttingProxy, str]) -> Iterator[Run]:
    run = Run(tmp_path, redis_url, learner_port, proxy[1])
    yield run
    run.end()


async def befall(
    run: Run, proxy: CuttingProxy, http: httpx.AsyncClient, rng: random.Random, *, may_start: bool
) -> None:
    """One thing that may happen, at any moment of the others."""
    name = rng.choice(NAMES)
    replica = run.replicas.get(name)
    what = rng.choice(
        ["small"] * 4 + ["large", "config", "cut", "cut", "freeze", "freeze", "full", "flip", "kill", "die"]
    )
    if what in ("small", "large", "config"):
        run.publish({"small": "0.01", "large": "0.9", "config": "config"}[what])
    elif what == "cut":
        proxy.cuts += [rng.randrange(20_000) for _ in range(3)]
    elif what == "freeze":
        for process in [run.publisher, *run.replicas.values()]:
            if process and process.is_frozen:
                process.thaw()
            elif process and rng.random() < 0.3:
                process.freeze()
    elif what == "full":
        run.limit_files(name, rng.choice([0, 5000, PLENTY]))
    elif what == "flip" and replica and not replica.is_frozen:
        served = await run.served(http, name)
        if served and served[0]:
            run.flip_a_byte(name, served[0], rng)  # noticed when a delta changes that base
    elif what == "kill" and may_start:
        if replica:
            run.replicas.pop(name).end(rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]))
            run.flip_a_byte(name, "*", rng)
        else:
            run.join(name)
    elif what == "die" and may_start and run.publisher:
        run.publisher.end()
        run.start_publisher()


async def go_through(run: Run, proxy: CuttingProxy, rng: random.Random, num_events: int, num_starts: int) -> None:
    run.start_publisher()
    for name in NAMES[:2]:
        run.join(name)
    async with httpx.AsyncClient(trust_env=False) as http:
        await wait_until_async(lambda: run.is_caught_up(http), 60, run.story)
        for _ in range(num_events):
            before = run.generation, sorted(run.replicas)
            await befall(run, proxy, http, rng, may_start=num_starts > 0)
            num_starts -= (run.generation, sorted(run.replicas)) != before
            await run.check(http)
        for process in [*run.replicas.values(), *([run.publisher] if run.publisher else [])]:
            process.thaw()
        for name in NAMES:
            run.join(name)
            run.limit_files(name, -1)
        proxy.cuts.clear()
        run.publish("0.01")

        async def caught_up() -> bool:
            await run.check(http)
            return await run.is_caught_up(http)

        await wait_until_async(caught_up, 60, run.story)


@pytest.mark.drill
async def test_one_that_cannot_take_weights_says_why_and_takes_them_once_it_can(
    run: Run, proxy: tuple[CuttingProxy, str]
) -> None:
    run.start_publisher()
    run.join("a")
    async with httpx.AsyncClient(trust_env=False) as http:
        await wait_until_async(lambda: run.is_caught_up(http), 60, run.story)
        run.limit_files("a", 5000)
        for _ in range(3):
            run.publish("0.01")

        async def says_why() -> bool:
            found = await run.served(http, "a")
            ready = await http.get(f"http://127.0.0.1:{run.ports['a']}/readyz")
            return bool(found and "cannot store weights" in found[2]) and ready.status_code == 503

        await wait_until_async(says_why, 30, run.story)
        await run.check(http)
        run.limit_files("a", -1)
        run.publish("0.01")
        await wait_until_async(lambda: run.is_caught_up(http), 60, run.story)


@pytest.mark.drill
async def test_whatever_befalls_them_what_is_served_was_published(run: Run, proxy: tuple[CuttingProxy, str]) -> None:
    await go_through(run, proxy[0], random.Random(1), num_events=40, num_starts=2)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 8))
async def test_in_any_order(seed: int, run: Run, proxy: tuple[CuttingProxy, str]) -> None:
    await go_through(run, proxy[0], random.Random(seed), num_events=150, num_starts=12)
