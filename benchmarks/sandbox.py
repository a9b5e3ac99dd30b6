"""What a jailed run costs, compared with a plain interpreter without isolation.

python -m benchmarks.sandbox            all tables (about a minute of two cores)
python -m benchmarks.sandbox --quick    fewer rounds (some seconds)

The ways to run alternate round by round, so that other work on the machine slows all of them; ratios are per round.
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

# Enough to keep both cores busy.
NUM_AT_ONCE = 8
SOURCE = "print(int(input()) * 2)"
PROGRAM = Program(SOURCE.encode(), stdin=b"21\n")
LOOP = Program(b"while True: pass")
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
        ratios = [rate / base for rate, base in zip(self.rates, baseline.rates, strict=True)]
        rates = " | ".join(f"{pick(self.rates):,.0f}" for pick in (min, median, max))
        return f"| {self.name} | {rates} | " + " | ".join(f"{pick(ratios):.2f}" for pick in (min, median, max)) + " |"


def run_plain() -> None:
    """Runs `python -I -c`, as a harness without a sandbox does."""
    finished = subprocess.run([sys.executable, "-I", "-c", SOURCE], input=b"21\n", capture_output=True, check=True)
    assert finished.stdout == b"42\n"


async def run_plain_interpreters(count: int) -> None:
    await _run_concurrently(count, lambda: asyncio.to_thread(run_plain))


async def _run_concurrently(count: int, work: Callable[[], Awaitable[object]]) -> None:
    """`count` times, NUM_AT_ONCE at a time."""
    left = iter(range(count))

    async def worker() -> None:
        for _ in left:
            await work()

    await asyncio.gather(*(worker() for _ in range(NUM_AT_ONCE)))


def make_script_round(sandbox: JailSandbox | UnsafeSandbox) -> Round:
    async def one() -> None:
        assert (await sandbox.run(PROGRAM, Limits())).stdout == b"42\n"

    return lambda count: _run_concurrently(count, one)


def make_pair_round(sandbox: JailSandbox) -> Round:
    async def one() -> None:
        _, judged = await sandbox.run_pair(SOLUTION, JUDGE, Limits())
        assert b'"num_passed": 3' in judged.stdout

    return lambda count: _run_concurrently(count, one)


async def measure_rates(rounds: int, ways: dict[str, tuple[int, Round]]) -> list[Figures]:
    """Measures each way to run in each round; each comes with its number of runs."""
    figures = [Figures(name, []) for name in ways]
    for _ in range(rounds):
        for figure, (count, run) in zip(figures, ways.values(), strict=True):
            started = time.perf_counter()
            await run(count)
            figure.rates.append(count / (time.perf_counter() - started))
    return figures


async def print_latency(jail: JailSandbox, rounds: int) -> None:
    """The latency of a single run, and of a plain interpreter."""
    plain, jailed = [], []
    for _ in range(rounds * 10):
        started = time.perf_counter()
        await asyncio.to_thread(run_plain)
        plain.append(time.perf_counter() - started)
        started = time.perf_counter()
        await jail.run(PROGRAM, Limits())
        jailed.append(time.perf_counter() - started)
    print("| one at a time, ms | min | median | max |\n|---|---:|---:|---:|")
    for name, seconds in (("plain `python -I -c`", plain), ("jailed run", jailed)):
        print(f"| {name} | " + " | ".join(f"{pick(seconds) * 1e3:.2f}" for pick in (min, median, max)) + " |")


async def measure_rate_beside_loops(jail: JailSandbox, every: int) -> float:
    """Ordinary runs per second while every `every`-th run never ends (0: none); the loops are ended after it."""
    is_loop = [every > 0 and position % every == 0 for position in range(400)]
    loops: list[asyncio.Task[object]] = []
    left = iter(is_loop)

    async def worker() -> None:
        for loops_forever in left:
            if loops_forever:
                loops.append(asyncio.create_task(jail.run(LOOP, Limits())))
            else:
                assert (await jail.run(PROGRAM, Limits())).stdout == b"42\n"

    started = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(NUM_AT_ONCE)))
    seconds = time.perf_counter() - started
    assert not any(loop.done() for loop in loops)
    for loop in loops:
        loop.cancel()
    await asyncio.gather(*loops, return_exceptions=True)
    return is_loop.count(False) / seconds


async def print_rates_beside_loops(jail: JailSandbox, rounds: int) -> None:
    shares = {"no endless loop": 0, "1 in 100": 100, "1 in 20": 20}
    figures = [Figures(name, []) for name in shares]
    for _ in range(rounds):
        for figure, every in zip(figures, shares.values(), strict=True):
            figure.rates.append(await measure_rate_beside_loops(jail, every))
    print("| ordinary runs per second | min | median | max | ratio min | median | max |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for figure in figures:
        print(figure.row(figures[0]))


async def main(rounds: int) -> None:
    async with (
        open_jail(JailOptions(concurrency=NUM_AT_ONCE)) as jail,
        open_jail(JailOptions(concurrency=NUM_AT_ONCE, uses_namespaces=False)) as bare,
        open_jail(JailOptions(concurrency=2)) as default,
    ):
        print(f"layers: {dict(jail.layers)}\n")
        ways = {
            "plain `python -I -c`": (60, run_plain_interpreters),
            "jailed run": (240, make_script_round(jail)),
            "jailed run, no namespaces (as in containers)": (240, make_script_round(bare)),
            "jailed solution and its judge": (120, make_pair_round(jail)),
            "no jail (the unsafe switch)": (20, make_script_round(UnsafeSandbox(NUM_AT_ONCE))),
        }
        figures = await measure_rates(rounds, ways)
        print(
            "| runs per second | min | median | max | ratio min | median | max |\n|---|---:|---:|---:|---:|---:|---:|"
        )
        for figure in figures:
            print(figure.row(figures[0]))
        print()
        await print_latency(jail, rounds)
        print()
        await print_rates_beside_loops(default, rounds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    asyncio.run(main(3 if parser.parse_args().quick else 10))
