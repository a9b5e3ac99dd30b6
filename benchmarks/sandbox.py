"""What a jailed run costs beside a plain interpreter without any isolation.

python -m benchmarks.sandbox            all tables (about a minute of two cores)
python -m benchmarks.sandbox --quick    fewer rounds (some seconds)

Rounds of each kind alternate in one run, so that other work on the machine meets all of them; ratios are per round.
"""

import argparse
import asyncio
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from statistics import median

from services.verifier.sandbox.jail_sandbox import JailSandbox, open_jail
from services.verifier.sandbox.judge_script import JudgeScript
from services.verifier.sandbox.messages import JailOptions
from services.verifier.sandbox.sandbox import Limits, Program, Role
from services.verifier.sandbox.unsafe_sandbox import UnsafeSandbox

# Enough that both cores always have work, whatever waits for whom.
NUM_AT_ONCE = 8
SOURCE = "print(int(input()) * 2)"
PROGRAM = Program(SOURCE.encode(), stdin=b"21\n")
SOLUTION = Program(b"def add(a, b):\n    return a + b", Role.SOLUTION)
ASSERTS = tuple(f"assert add({n}, 2) == {n + 2}" for n in range(3))
JUDGE = Program(JudgeScript("", ASSERTS, "add", calls_check=False, is_partial=False).pack(), Role.JUDGE)

Round = Callable[[int], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Figures:
    """A rate per second in each round."""

    name: str
    rates: list[float]

    def row(self, baseline: "Figures") -> str:
        ratios = [own / theirs for own, theirs in zip(self.rates, baseline.rates, strict=True)]
        rates = " | ".join(f"{pick(self.rates):,.0f}" for pick in (min, median, max))
        return f"| {self.name} | {rates} | " + " | ".join(f"{pick(ratios):.2f}" for pick in (min, median, max)) + " |"


def plain_run() -> None:
    """`python -I -c`, as a harness without a sandbox starts it."""
    done = subprocess.run([sys.executable, "-I", "-c", SOURCE], input=b"21\n", capture_output=True, check=True)
    assert done.stdout == b"42\n"


async def plain_interpreters(count: int) -> None:
    await _at_once(count, lambda: asyncio.to_thread(plain_run))


async def _at_once(count: int, work: Callable[[], Awaitable[object]]) -> None:
    """`count` times, NUM_AT_ONCE at a time."""
    left = iter(range(count))

    async def worker() -> None:
        for _ in left:
            await work()

    await asyncio.gather(*(worker() for _ in range(NUM_AT_ONCE)))


def scripts(sandbox: JailSandbox | UnsafeSandbox) -> Round:
    async def one() -> None:
        assert (await sandbox.run(PROGRAM, Limits())).stdout == b"42\n"

    return lambda count: _at_once(count, one)


def pairs(sandbox: JailSandbox) -> Round:
    async def one() -> None:
        _, judged = await sandbox.run_pair(SOLUTION, JUDGE, Limits())
        assert b'"num_passed": 3' in judged.stdout

    return lambda count: _at_once(count, one)


async def measure(rounds: int, kinds: dict[str, tuple[int, Round]]) -> list[Figures]:
    """Rates of each kind in each round; the kinds alternate."""
    figures = [Figures(name, []) for name in kinds]
    for _ in range(rounds):
        for own, (count, run) in zip(figures, kinds.values(), strict=True):
            started = time.perf_counter()
            await run(count)
            own.rates.append(count / (time.perf_counter() - started))
    return figures


async def one_at_a_time(jail: JailSandbox, rounds: int) -> None:
    """The latency of a single run, beside a plain interpreter's."""
    plain, jailed = [], []
    for _ in range(rounds * 10):
        started = time.perf_counter()
        await asyncio.to_thread(plain_run)
        plain.append(time.perf_counter() - started)
        started = time.perf_counter()
        await jail.run(PROGRAM, Limits())
        jailed.append(time.perf_counter() - started)
    print("| one at a time, ms | min | median | max |\n|---|---:|---:|---:|")
    for name, seconds in (("plain `python -I -c`", plain), ("jailed run", jailed)):
        print(f"| {name} | " + " | ".join(f"{pick(seconds) * 1e3:.2f}" for pick in (min, median, max)) + " |")


async def main(rounds: int) -> None:
    async with (
        open_jail(JailOptions(concurrency=NUM_AT_ONCE)) as jail,
        open_jail(JailOptions(concurrency=NUM_AT_ONCE, uses_namespaces=False)) as bare,
    ):
        print(f"layers: {dict(jail.layers())}\n")
        kinds = {
            "plain `python -I -c`": (60, plain_interpreters),
            "jailed run": (240, scripts(jail)),
            "jailed run, no namespaces (as in containers)": (240, scripts(bare)),
            "jailed solution and its judge": (120, pairs(jail)),
            "no jail (the unsafe switch)": (20, scripts(UnsafeSandbox(NUM_AT_ONCE))),
        }
        figures = await measure(rounds, kinds)
        print(
            "| runs per second | min | median | max | ratio min | median | max |\n|---|---:|---:|---:|---:|---:|---:|"
        )
        for own in figures:
            print(own.row(figures[0]))
        print()
        await one_at_a_time(jail, rounds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    asyncio.run(main(3 if parser.parse_args().quick else 10))
