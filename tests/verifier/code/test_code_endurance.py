"""Thousands of items, some hostile, while the fork-server is killed: nothing lost, nothing wrong, nothing left."""

import asyncio
import contextlib
import gc
import os
import random
import signal
from collections import Counter
from pathlib import Path

import pytest

from services.verifier.checks.check import Judgement
from services.verifier.checks.code.check import CodeCheck
from services.verifier.config import CodeConfig
from services.verifier.sandbox.jail_sandbox import JailSandbox, open_jail
from services.verifier.sandbox.messages import JailOptions
from tests.verifier.code.judging import asserts, code_item, judge_items, stdio
from tests.verifier.sandbox.processes import count_descriptors, find_descendants, is_running

KINDS = {
    "right program": ("print(int(input()) * 2)", stdio(("21\n", "42\n"), ("4\n", "8\n")), 1.0),
    "wrong program": ("print(int(input()) * 3)", stdio(("21\n", "42\n")), 0.0),
    "right function": ("def f(x):\n    return x * 2", asserts("assert f(2) == 4", "assert f(3) == 6"), 1.0),
    "wrong function": ("def f(x):\n    return x", asserts("assert f(2) == 4"), 0.0),
    "liar": (
        "class E(int):\n    __eq__ = lambda s, o: True\ndef f(x):\n    return E()",
        asserts("assert f(2) == 4"),
        0.0,
    ),
}
HOSTILE = {
    "exit": ("import os\nos._exit(0)", stdio(("", "owned\n")), 0.0),
    "fork": ("import os\nos.fork()\nprint('owned')", stdio(("", "owned\n")), 0.0),
    "violation": ("import ctypes\nctypes.CDLL(None).unshare(1 << 28)\nprint('owned')", stdio(("", "owned\n")), 0.0),
    "memory": ("x = bytearray(1 << 33)\nprint('owned')", stdio(("", "owned\n")), 0.0),
    "flood": ("while True: print('x' * 10**6)", stdio(("", "owned\n")), 0.0),
    "threads": (
        "import threading, time\nfor _ in range(99):\n    threading.Thread(target=time.sleep, args=(9,), daemon=True)"
        ".start()\nprint('owned')",
        stdio(("", "owned\n")),
        0.0,
    ),
    "crash": ("import ctypes\nctypes.string_at(0)", stdio(("", "owned\n")), 0.0),
    "flood of the judge": ("import os\nwhile True: os.write(4, b'x' * 65536)", asserts("assert f() == 1"), 0.0),
}
ENDLESS = ("while True: pass", stdio(("", "owned\n")), 0.0)


def _mixture(count: int, chance: random.Random) -> list[str]:
    """Names of items, one in twenty of them hostile."""
    return [chance.choice(list(HOSTILE if chance.random() < 0.05 else KINDS)) for _ in range(count)]


def _resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def _kill_repeatedly(sandbox: JailSandbox, chance: random.Random, seconds: float) -> None:
    while True:
        await asyncio.sleep(chance.uniform(0.5, 1.5) * seconds)
        if sandbox.fork_server_pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(sandbox.fork_server_pid, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [1, 2])
async def test_thousands_of_items_under_kills(seed: int) -> None:
    chance = random.Random(seed)
    async with open_jail(JailOptions(concurrency=4)) as sandbox:
        check = CodeCheck(sandbox, CodeConfig())
        killing = asyncio.create_task(_kill_repeatedly(sandbox, chance, 3.0))
        rewards: Counter[tuple[float, float | None]] = Counter()
        resident: list[int] = []
        descriptors: list[int] = []
        for _ in range(20):
            names = _mixture(250, chance)
            rows = [(KINDS | HOSTILE)[name] for name in names]
            items = [code_item(response, tests, seconds=20.0) for response, tests, _ in rows]
            judgements: list[Judgement] = await judge_items(check, items)
            rewards.update((expected, judged.reward) for (_, _, expected), judged in zip(rows, judgements, strict=True))
            gc.collect()
            resident.append(_resident_bytes(os.getpid()))
            descriptors.append(count_descriptors())
        killing.cancel()
        assert sandbox.num_starts > 3
        assert set(rewards) == {(1.0, 1.0), (0.0, 0.0)}, rewards
        assert max(descriptors[5:]) <= descriptors[4] + 8
        assert max(resident[5:]) < 1.1 * resident[4]
        assert all(map(is_running, find_descendants()))
        endless = await judge_items(check, [code_item(ENDLESS[0], ENDLESS[1], seconds=0.5)] * 8)
        assert {judgement.reward for judgement in endless} == {0.0}
    assert not find_descendants()
