"""A hundred thousand mixed items, some hostile, while processes are killed: none lost or wrong, nothing left."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.verifier.judging import rows_of
from tests.verifier.sandbox.processes import count_descriptors, find_descendants, is_running
from tests.verifier.serving import judge, make_item
from tests.waiting import wait_until

pytestmark = pytest.mark.drill

BATCH = 250
IN_FLIGHT = 4
SERVE = (
    "import sys; from pathlib import Path\n"
    "from services.verifier.config import MathConfig, VerifierConfig\n"
    "from services.verifier.wiring import main\n"
    "sys.exit(main(VerifierConfig(port=0, url_file=Path(sys.argv[1]), cache_entries=1000, log_level='error')))\n"
)


@dataclass(frozen=True, slots=True)
class ExpectedItem:
    """An item and the reward it must get; None: any but 1."""

    item: dict[str, Any]
    reward: float | None


def _item(kind: str, response: str, key: dict[str, Any]) -> dict[str, Any]:
    return make_item(kind, response, key, limits={"wall_seconds": 2})


class Mixture:
    """Random items: most are numbers, a few need a worker or the jail, one in twenty is hostile."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._chains = rows_of("gsm8k.jsonl.gz")
        self._solutions = rows_of("math500.jsonl.gz")
        math = [row for row in rows_of("math_attacks.jsonl.gz") if row["expected"] != "accept"]
        self._math_attacks = [_item("math", row["payload"], {"gold": row["gold"]}) for row in math]
        code = [row for row in rows_of("code_attacks.jsonl.gz") if row["expected"] == "reject"]
        # those without tests get a 422, which test_service.py tests
        self._code_attacks = [
            _item("code", row["payload"], {"tests": row["tests"]}) for row in code if not _is_empty(row["tests"])
        ]

    def next(self) -> ExpectedItem:
        kind = self._random.random()
        if kind < 0.05:
            return ExpectedItem(self._random.choice(self._code_attacks if kind < 0.003 else self._math_attacks), None)
        if kind < 0.10:
            return self._code()
        if kind < 0.11:
            return self._by_worker()
        if kind < 0.15:
            letter = self._random.choice("ABCD")
            return ExpectedItem(_item("choice", rf"\boxed{{{letter}}}", {"gold": "B"}), float(letter == "B"))
        if kind < 0.3:
            row = self._random.choice(self._solutions)
            return ExpectedItem(_item("math", row["response"], {"gold": row["gold"]}), 1.0)
        row = self._random.choice(self._chains)
        off = self._random.choice((0, 0, 1))
        gold = str(int(row["gold"].replace(",", "")) + off)
        return ExpectedItem(_item("math", row["response"], {"gold": gold}), float(not off))

    def _code(self) -> ExpectedItem:
        factor, expected = self._random.choice((2, 3)), self._random.choice((2, 3))
        tests = {"type": "stdio", "cases": [{"input": f"{n}\n", "output": f"{expected * n}\n"} for n in (1, 7)]}
        return ExpectedItem(
            _item("code", f"print(int(input()) * {factor})", {"tests": tests}), float(factor == expected)
        )

    def _by_worker(self) -> ExpectedItem:
        hole, expected = self._random.randrange(9), self._random.randrange(9)
        answer = rf"\boxed{{(-\infty,{hole})\cup({hole},\infty)}}"
        return ExpectedItem(
            _item("math", answer, {"gold": rf"\mathbb{{R}}\setminus\{{{expected}\}}"}), float(hole == expected)
        )


def _is_empty(tests: dict[str, Any]) -> bool:
    return not (tests.get("cases") or tests.get("asserts") or tests.get("test"))


class Service:
    """A verifier in a process of its own."""

    def __init__(self, folder: Path) -> None:
        url_file = folder / "url"
        self._process = subprocess.Popen([sys.executable, "-c", SERVE, str(url_file)], cwd=Path.cwd())
        wait_until(url_file.exists, 60)
        self.url = url_file.read_text()
        self.pid = self._process.pid

    def stop(self) -> int:
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(30)

    def memory_bytes(self) -> int:
        """The memory of the service's own process."""
        for line in Path(f"/proc/{self.pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) << 10
        raise AssertionError("no Pss")


@contextmanager
def _service(folder: Path) -> Iterator[Service]:
    service = Service(folder)
    try:
        yield service
    finally:
        assert service.stop() == 0


@dataclass(slots=True)
class Tally:
    """The results of a run."""

    num_judged: int = 0
    num_null: int = 0
    num_kills: int = 0
    memory_bytes: list[int] = field(default_factory=list)
    wrong: list[tuple[ExpectedItem, dict[str, Any]]] = field(default_factory=list)


async def _judge(client: httpx.AsyncClient, items: list[ExpectedItem], tally: Tally) -> None:
    """Judges items again until each has a reward, as a caller would."""
    left = items
    for _ in range(20):
        numbered = [{**one.item, "id": str(number)} for number, one in enumerate(left)]
        verdicts = await judge(client, *numbered, deadline_seconds=60)
        again = []
        for one, verdict in zip(left, verdicts, strict=True):
            if verdict["reward"] is None:
                again.append(one)
            elif verdict["reward"] != one.reward and not (one.reward is None and verdict["reward"] < 1):
                tally.wrong.append((one, verdict))
        tally.num_judged += len(left) - len(again)
        tally.num_null += len(again)
        if not again:
            return
        left = again
    raise AssertionError(f"never judged: {left[0]}")


@dataclass(frozen=True, slots=True)
class Kills:
    """How often a process is killed, and how many are at most."""

    every_seconds: float
    most: int


async def _kill_repeatedly(service: Service, tally: Tally, kills: Kills) -> None:
    """Kills one random process at a time, and the next one only when all workers are back."""
    draw = random.Random(1)
    async with httpx.AsyncClient(base_url=service.url, timeout=60) as client:
        while tally.num_kills < kills.most:
            await asyncio.sleep(kills.every_seconds)
            math = (await client.get("/healthz")).json()["kinds"]["math"]
            living = [pid for pid in find_descendants(service.pid) if is_running(pid)]
            if math["live"] > math["workers"] and living:
                os.kill(draw.choice(living), signal.SIGKILL)
                tally.num_kills += 1


async def _endure(service: Service, num_items: int, kills: Kills) -> Tally:
    tally, mixture = Tally(), Mixture(seed=num_items)
    batches = iter([[mixture.next() for _ in range(BATCH)] for _ in range(num_items // BATCH)])
    every = max(1, num_items // BATCH // 50)

    async def work_through(client: httpx.AsyncClient) -> None:
        for batch in batches:
            await _judge(client, batch, tally)
            if (tally.num_judged // BATCH) % every == 0:
                tally.memory_bytes.append(service.memory_bytes())

    killing = asyncio.create_task(_kill_repeatedly(service, tally, kills))
    async with httpx.AsyncClient(base_url=service.url, timeout=120) as client, asyncio.TaskGroup() as group:
        for _ in range(IN_FLIGHT):
            group.create_task(work_through(client))
    killing.cancel()
    await asyncio.wait((killing,))
    return tally


async def _wait_until_settled(service: Service) -> tuple[int, int]:
    """The numbers of descriptors and zombies, once all workers are back and both stood still for 3 seconds."""
    deadline = time.monotonic() + 60
    samples: list[tuple[int, int]] = []
    async with httpx.AsyncClient(base_url=service.url, timeout=60) as client:
        while time.monotonic() < deadline and (len(samples) < 4 or len(set(samples[-4:])) > 1):
            math = (await client.get("/healthz")).json()["kinds"]["math"]
            zombies = [pid for pid in find_descendants(service.pid) if not is_running(pid)]
            if math["live"] > math["workers"]:
                samples.append((count_descriptors(service.pid), len(zombies)))
            await asyncio.sleep(1)
    return samples[-1]


async def test_some_thousand_items_survive_killed_workers(tmp_path: Path) -> None:
    with _service(tmp_path) as service:
        tally = await _endure(service, 3_000, Kills(0.3, most=4))
    assert tally.wrong == []
    assert tally.num_judged == 3_000


KILLS = Kills(1.0, most=10_000)


@pytest.mark.slow
@pytest.mark.timeout(3_600)
async def test_a_hundred_thousand_items_leave_nothing_behind(tmp_path: Path) -> None:
    files_before = set(Path("/tmp").iterdir())
    with _service(tmp_path) as service:
        await _endure(service, 5_000, KILLS)  # warm
        num_descriptors, _ = await _wait_until_settled(service)
        tally = await _endure(service, 100_000, KILLS)
        num_descriptors_after, num_zombies = await _wait_until_settled(service)
        num_processes = len(find_descendants(service.pid))
    assert tally.wrong == []
    assert tally.num_judged == 100_000
    assert num_zombies == 0
    assert num_descriptors_after <= num_descriptors + 3
    assert tally.num_kills >= 10
    third = len(tally.memory_bytes) // 3
    first, last = sorted(tally.memory_bytes[:third]), sorted(tally.memory_bytes[-third:])
    assert last[third // 2] == pytest.approx(first[third // 2], rel=0.1)
    assert num_processes < 30
    assert {path for path in set(Path("/tmp").iterdir()) - files_before if "VERIFIER" in path.name} == set()
    print(f"{tally.num_kills} kills, {tally.num_null} judged again, {last[third // 2] >> 20} MiB")
