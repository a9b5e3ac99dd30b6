"""New weights, from the optimizer's step to every replica that serves them: bytes, time, processors, memory.

python -m benchmarks.weights                     all tables (some twenty minutes of two cores, 10 GB of memory)
python -m benchmarks.weights --quick             smaller bundles, fewer steps (under five minutes)
python -m benchmarks.weights --quick --json      the same, and its figures as one line of JSON at the end

Shares are of real AdamW steps, of SmolLM2-135M where `--model DIRECTORY` names it or the package index has it, and of
the demo's model. Transport is real: one process is the learner's side (snapshots, deltas, HTTP), one holds the
replicas, whose engines are stubs: the pause of generation, an engine's load, is not in these figures. Bundles lie in
memory (/dev/shm) where there is any, the learner's of over 1 GB on the disk. Rates are per CPU-second, beside a memcpy
in the same run.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

os.environ.setdefault("OMP_NUM_THREADS", "1")

from transformers.utils.logging import disable_progress_bar

from benchmarks.weights import blocked, parts, shares
from benchmarks.weights.fleet import Delivered, fleet, late_replicas

_MEMORY = Path("/dev/shm")
_PACE = 2.0
"""Seconds between versions, over those that one takes to reach all replicas but the slow one."""
_SLOW_BYTES_PER_SECOND = 1e6
_LARGE_BYTES = 1e9


@dataclass(frozen=True, slots=True)
class Amounts:
    """How much is moved, and how often."""

    rounds: int
    part_bytes: int
    fleets: tuple[tuple[int, int], ...]
    """Replicas, and bytes of a bundle."""
    slow_bytes: int
    versions: int
    steps: int
    tokens: int
    lrs: tuple[float, ...]
    real: bool = True


MB = 1_000_000
QUICK = Amounts(3, 100 * MB, ((1, 200 * MB), (4, 100 * MB)), 48 * MB, 3, 2, 32, (1e-6,))
FULL = Amounts(3, 500 * MB, ((1, 3400 * MB), (4, 500 * MB), (16, 128 * MB)), 128 * MB, 8, 6, 128, shares.LRS)
TOY = Amounts(1, MB, ((1, MB),), MB, 2, 1, 16, (), real=False)
PARTS = ("fleets", "parts", "blocked", "shares")
_SIZES = {"quick": QUICK, "full": FULL, "toy": TOY}


def spread(values: Sequence[float], unit: str = "") -> str:
    """Median, and the least and the most."""
    return f"{median(values):.3g}{unit} ({min(values):.3g} to {max(values):.3g})"


def table(title: str, *columns: str) -> None:
    print(f"\n## {title}\n\n| {' | '.join(columns)} |\n{'|---' * len(columns)}|")


def measure_shares(amounts: Amounts, real: Path | None, seed: int) -> float:
    table("What a step changes", "model", "lr", "values", "bytes of a delta over full", "at each step")
    found = []
    for one in shares.measure(real, amounts.lrs, amounts.steps, amounts.tokens, seed):
        found.append(one)
        values = [100 * step.values for step in one.steps]
        sizes = [100 * step.num_bytes for step in one.steps]
        steps = ", ".join(f"{size:.2f}" for size in sizes)
        print(f"| {one.model} | {one.lr:g} | {spread(values, '%')} | {spread(sizes, '%')} | {steps} |", flush=True)
    return next(one.delta_share for one in found if one.lr == 1e-6)


def measure_blocked(amounts: Amounts, real: Path | None, scratch: Path) -> tuple[float, float]:
    """In copies of the fp32 weights, which it reads, and of the published bytes, which it writes."""
    found = blocked.measure(real or blocked.make(scratch / "toy", amounts.real), 2 * amounts.rounds + 1)
    table(f"Training blocked by a publication ({found.num_bytes / MB:.0f} MB)", "", "seconds")
    print(f"| the copy that training waits for | {spread(found.seconds)} |")
    print(f"| the first, into new memory | {found.first_seconds:.3g} |")
    print(f"| a memcpy of as many bytes | {spread(found.memcpy_seconds)} |")
    print(f"| a memcpy of the fp32 weights, all of which are read | {spread(found.whole_seconds)} |")
    print(
        f"\nIn copies of the published bytes {found.copies:.2f}, of the fp32 weights {found.whole_copies:.2f}.",
        flush=True,
    )
    return found.whole_copies, found.copies


def measure_parts(amounts: Amounts, scratch: Path, seed: int) -> None:
    print(
        f"\n## The parts, each alone ({amounts.part_bytes / MB:.0f} MB)\n\n| | GB per CPU-second | in memory copies |"
    )
    print("|---|---|---|")
    rates = parts.measure(scratch, amounts.part_bytes, amounts.rounds, seed)
    print(f"| memcpy | {spread([one.memcpy_bytes_per_second / 1e9 for one in rates])} | 1 |")
    for name in dict.fromkeys(one.part for one in rates):
        of_part = [one for one in rates if one.part == name]
        speed = spread([one.bytes_per_second / 1e9 for one in of_part])
        print(f"| {name} | {speed} | {spread([one.copies for one in of_part])} |", flush=True)


def measure_fleets(amounts: Amounts, scratch: Path, disk: Path, seed: int) -> tuple[float, bool]:
    """CPU-seconds per GB and replica, of full transfers; whether all replicas served what was published."""
    table(
        "From the step to the replicas",
        "replicas",
        "MB",
        "",
        "CPU-s per GB and replica",
        "of it the learner's",
        "s to the first",
        "s to the last",
        "peak of the learner, the replicas (MB)",
    )
    costs, are_equal = [], True
    for count, num_bytes in amounts.fleets:
        learners = disk if num_bytes >= _LARGE_BYTES else None  # memory is short
        with fleet(scratch / f"fleet-{count}", num_bytes, count, seed=seed, learners=learners) as running:
            running.deliver(anew=True)  # the first: nothing is compared yet
            for anew in (True, False):
                found = [running.deliver(anew=anew) for _ in range(amounts.rounds)]
                print_deliveries(found, count, "full" if anew else "delta")
                if anew:
                    costs.append(median(one.cpu_seconds / one.gigabytes / count for one in found))
            are_equal &= not running.ask(running.replicas, "differing")
    return max(costs), are_equal


def print_deliveries(found: list[Delivered], count: int, way: str) -> None:
    gigabytes = found[0].gigabytes
    cells = (
        spread([one.cpu_seconds / gigabytes / count for one in found]),
        spread([one.learner_cpu_seconds / gigabytes / count for one in found]),
        spread([one.first_seconds for one in found]),
        spread([one.last_seconds for one in found]),
        f"{max(one.learner_bytes for one in found) / MB:.0f}, {max(one.replica_bytes for one in found) / MB:.0f}",
    )
    print(f"| {count} | {1000 * gigabytes:.0f} | {way} | {' | '.join(cells)} |", flush=True)


def measure_late(amounts: Amounts, scratch: Path, seed: int) -> tuple[int, bool]:
    """How many of 15 replicas are late beside a slow one, and whether what they serve was published."""
    slow = _SLOW_BYTES_PER_SECOND
    with fleet(scratch / "slow", amounts.slow_bytes, 16, seed=seed, slow_bytes_per_second=slow) as running:
        running.deliver()
        seconds = max(running.deliver().last_seconds for _ in range(2))
        late, is_slow = late_replicas(running, amounts.versions, _PACE * seconds)
        differing = set(running.ask(running.replicas, "differing")) - running.slow
    seconds_apart, was = _PACE * seconds, "was" if is_slow else "was not"
    print(f"\n## One slow replica of 16 ({amounts.slow_bytes / MB:.0f} MB, {slow / MB:g} MB/s)\n")
    print(
        f"{amounts.versions} versions, one each {seconds_apart:.1f} s, staleness bound 1: of the other 15, "
        f"{late} were ever over it; the slow one {was}.",
        flush=True,
    )
    return late, not differing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", dest="size", action="store_const", const="quick", default="full")
    size.add_argument("--toy", dest="size", action="store_const", const="toy", help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    parser.add_argument("--model", type=Path, help="a real model, as benchmarks.real_model makes one")
    parser.add_argument("--only", nargs="+", choices=PARTS, help="these parts alone")
    parser.add_argument(
        "--fleet", type=int, nargs=2, action="append", metavar=("REPLICAS", "MB"), help="in place of the usual fleets"
    )
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    amounts, seed = _SIZES[arguments.size], arguments.seed
    if arguments.fleet:
        amounts = replace(amounts, fleets=tuple((count, size * MB) for count, size in arguments.fleet))
    disable_progress_bar()
    started = time.monotonic()
    with ExitStack() as scratches:
        in_memory = str(_MEMORY) if os.access(_MEMORY, os.W_OK) else None
        scratch = Path(scratches.enter_context(tempfile.TemporaryDirectory(prefix="ibtpo-weights-", dir=in_memory)))
        disk = Path(scratches.enter_context(tempfile.TemporaryDirectory(prefix="ibtpo-weights-")))
        real = shares.real_directory(arguments.model, disk) if amounts.real else None
        print(f"Real model: {real or 'none can be had: the shares are those of the demo'}", flush=True)
        wanted = arguments.only or PARTS
        figures: dict[str, object] = {}
        for part in PARTS:
            if part in wanted:
                figures |= _measure(part, amounts, real, scratch, disk, seed)
    print(f"\n{time.monotonic() - started:.0f} s in all.")
    if arguments.json:
        print(json.dumps(figures))


def _measure(part: str, amounts: Amounts, real: Path | None, scratch: Path, disk: Path, seed: int) -> dict[str, object]:
    """Prints the tables of a part; returns its figures."""
    if part == "fleets":
        cpu_seconds, are_equal = measure_fleets(amounts, scratch, disk, seed)
        late, are_equal_beside = measure_late(amounts, scratch, seed)
        return {
            "cpu_seconds_per_gb": round(cpu_seconds, 3),
            "late_replicas": late,
            "bit_equal": are_equal and are_equal_beside,
        }
    if part == "parts":
        measure_parts(amounts, scratch, seed)
        return {}
    if part == "blocked":
        of_weights, of_published = measure_blocked(amounts, real, disk)
        return {
            "blocked_copies": round(of_weights, 3),
            "blocked_copies_of_published_bytes": round(of_published, 3),
        }
    return {"delta_share": round(measure_shares(amounts, real, seed), 5)}
