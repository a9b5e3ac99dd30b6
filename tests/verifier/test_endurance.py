"""A hundred thousand mixed items, some hostile, while workers are killed: nothing lost, wrong or left behind."""

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

BATCH = 250
IN_FLIGHT = 4
SERVE = (
    "import sys; from pathlib import Path\n"
    "from services.verifier.config import MathConfig, VerifierConfig\n"
    "from services.verifier.wiring import main\n"
    "sys.exit(main(VerifierConfig(port=0, url_file=Path(sys.argv[1]), cache_entries=1000, log_level='error')))\n"
)


@dataclass(frozen=True, slots=True)
class Owed:
    """An item, and the reward it must have (None: any but a reward of 1)."""

    item: dict[str, Any]
    reward: float | None


def _item(kind: str, response: str, key: dict[str, Any]) -> dict[str, Any]:
    return {"kind": kind, "response": response, "answer_key": key, "limits": {"wall_seconds": 2}}


class Mixture:
    """Draws items: most are answers in numbers, a few take a worker or the jail, one in twenty is hostile."""

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)
        self._chains = rows_of("gsm8k.jsonl.gz")
        self._solutions = rows_of("math500.jsonl.gz")
        math = [row for row in rows_of("math_attacks.jsonl.gz") if row["expected"] != "accept"]
        self._math_attacks = [_item("math", row["payload"], {"gold": row["gold"]}) for row in math]
        code = [row for row in rows_of("code_attacks.jsonl.gz") if row["expected"] == "reject"]
        # those without tests are answered with 422, which is tested elsewhere
        self._code_attacks = [
            _item("code", row["payload"], {"tests": row["tests"]}) for row in code if not _is_empty(row["tests"])
        ]

    def next(self) -> Owed:
        kind = self._draw.random()
        if kind < 0.05:
            return Owed(self._draw.choice(self._code_attacks if kind < 0.003 else self._math_attacks), None)
        if kind < 0.10:
            return self._code()
        if kind < 0.11:
            return self._by_worker()
        if kind < 0.15:
            letter = self._draw.choice("ABCD")
            return Owed(_item("choice", rf"\boxed{{{letter}}}", {"gold": "B"}), float(letter == "B"))
        if kind < 0.3:
            row = self._draw.choice(self._solutions)
            return Owed(_item("math", row["response"], {"gold": row["gold"]}), 1.0)
        row = self._draw.choice(self._chains)
        off = self._draw.choice((0, 0, 1))
        gold = str(int(row["gold"].replace(",", "")) + off)
        return Owed(_item("math", row["response"], {"gold": gold}), float(not off))

    def _code(self) -> Owed:
        factor, owed = self._draw.choice((2, 3)), self._draw.choice((2, 3))
        tests = {"type": "stdio", "cases": [{"input": f"{n}\n", "output": f"{owed * n}\n"} for n in (1, 7)]}
        return Owed(_item("code", f"print(int(input()) * {factor})", {"tests": tests}), float(factor == owed))

    def _by_worker(self) -> Owed:
        hole, owed = self._draw.randrange(9), self._draw.randrange(9)
        answer = rf"\boxed{{(-\infty,{hole})\cup({hole},\infty)}}"
        return Owed(_item("math", answer, {"gold": rf"\mathbb{{R}}\setminus\{{{owed}\}}"}), float(hole == owed))


def _is_empty(tests: dict[str, Any]) -> bool:
    return not (tests.get("cases") or tests.get("asserts") or tests.get("test"))


class Service:
    """The verifier as a process, with its descendants."""

    def __init__(self, folder: Path) -> None:
        url_file = folder / "url"
        self._process = subprocess.Popen([sys.executable, "-c", SERVE, str(url_file)], cwd=Path.cwd())
        deadline = time.monotonic() + 60
        while not url_file.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        self.url = url_file.read_text()
        self.pid = self._process.pid

    def stop(self) -> int:
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(30)

    def descendants(self) -> list[tuple[int, str]]:
        """(pid, state) of every process below."""
        parents: dict[int, list[tuple[int, str]]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                except OSError:
                    continue
                parents.setdefault(int(parent), []).append((int(entry.name), state))
        found, todo = [], [self.pid]
        while todo:
            below = parents.get(todo.pop(), [])
            found += below
            todo += [pid for pid, _ in below]
        return found

    def num_descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def memory_bytes(self) -> int:
        """What the service's own process holds."""
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
class Seen:
    """What a run came to."""

    num_judged: int = 0
    num_null: int = 0
    num_kills: int = 0
    memory_bytes: list[int] = field(default_factory=list)
    wrong: list[tuple[Owed, dict[str, Any]]] = field(default_factory=list)


async def _judge(client: httpx.AsyncClient, owed: list[Owed], seen: Seen) -> None:
    """Judges until none is without reward, as a caller would."""
    left = owed
    for _ in range(20):
        items = [{**one.item, "id": str(number)} for number, one in enumerate(left)]
        response = await client.post("/v1/verdicts", json={"items": items, "deadline_seconds": 60})
        assert response.status_code == 200, response.text
        verdicts = response.json()["verdicts"]
        again = []
        for one, verdict in zip(left, verdicts, strict=True):
            if verdict["reward"] is None:
                again.append(one)
            elif verdict["reward"] != one.reward and not (one.reward is None and verdict["reward"] < 1):
                seen.wrong.append((one, verdict))
        seen.num_judged += len(left) - len(again)
        seen.num_null += len(again)
        if not again:
            return
        left = again
    raise AssertionError(f"never judged: {left[0]}")


@dataclass(frozen=True, slots=True)
class Kills:
    """How often a process of the service is killed, and how many at most."""

    every_seconds: float
    most: int


async def _kill_now_and_then(service: Service, seen: Seen, kills: Kills) -> None:
    """Kills one process after another, each once the workers are back: what is killed while it starts never starts."""
    draw = random.Random(1)
    async with httpx.AsyncClient(base_url=service.url, timeout=60) as client:
        while seen.num_kills < kills.most:
            await asyncio.sleep(kills.every_seconds)
            math = (await client.get("/healthz")).json()["kinds"]["math"]
            living = [pid for pid, state in service.descendants() if state != "Z"]
            if math["live"] > math["workers"] and living:
                os.kill(draw.choice(living), signal.SIGKILL)
                seen.num_kills += 1


async def _endure(service: Service, num_items: int, kills: Kills) -> Seen:
    seen, mixture = Seen(), Mixture(seed=num_items)
    batches = iter([[mixture.next() for _ in range(BATCH)] for _ in range(num_items // BATCH)])
    every = max(1, num_items // BATCH // 50)

    async def work_through(client: httpx.AsyncClient) -> None:
        for batch in batches:
            await _judge(client, batch, seen)
            if (seen.num_judged // BATCH) % every == 0:
                seen.memory_bytes.append(service.memory_bytes())

    killing = asyncio.create_task(_kill_now_and_then(service, seen, kills))
    async with httpx.AsyncClient(base_url=service.url, timeout=120) as client, asyncio.TaskGroup() as group:
        for _ in range(IN_FLIGHT):
            group.create_task(work_through(client))
    killing.cancel()
    await asyncio.wait((killing,))
    return seen


async def _settled(service: Service) -> tuple[int, int]:
    """The numbers of descriptors and of zombies, once what was killed is back and both have stood for 3 seconds."""
    deadline = time.monotonic() + 60
    seen: list[tuple[int, int]] = []
    async with httpx.AsyncClient(base_url=service.url, timeout=60) as client:
        while time.monotonic() < deadline and (len(seen) < 4 or len(set(seen[-4:])) > 1):
            math = (await client.get("/healthz")).json()["kinds"]["math"]
            zombies = [pid for pid, state in service.descendants() if state == "Z"]
            if math["live"] > math["workers"]:
                seen.append((service.num_descriptors(), len(zombies)))
            await asyncio.sleep(1)
    return seen[-1]


async def test_some_thousand_items_survive_killed_workers(tmp_path: Path) -> None:
    with _service(tmp_path) as service:
        seen = await _endure(service, 3_000, Kills(0.3, most=4))
    assert seen.wrong == []
    assert seen.num_judged == 3_000


KILLS = Kills(1.0, most=10_000)


@pytest.mark.slow
@pytest.mark.timeout(3_600)
async def test_a_hundred_thousand_items_leave_nothing_behind(tmp_path: Path) -> None:
    files_before = set(Path("/tmp").iterdir())
    with _service(tmp_path) as service:
        await _endure(service, 5_000, KILLS)  # warm
        num_descriptors, _ = await _settled(service)
        seen = await _endure(service, 100_000, KILLS)
        num_descriptors_after, num_zombies = await _settled(service)
        num_processes = len(service.descendants())
    assert seen.wrong == []
    assert seen.num_judged == 100_000
    assert num_zombies == 0
    assert num_descriptors_after <= num_descriptors + 3
    assert seen.num_kills >= 10
    third = len(seen.memory_bytes) // 3
    first, last = sorted(seen.memory_bytes[:third]), sorted(seen.memory_bytes[-third:])
    assert last[third // 2] == pytest.approx(first[third // 2], rel=0.1)
    assert num_processes < 30
    assert {path for path in set(Path("/tmp").iterdir()) - files_before if "VERIFIER" in path.name} == set()
    print(f"{seen.num_kills} kills, {seen.num_null} judged again, {last[third // 2] >> 20} MiB")
