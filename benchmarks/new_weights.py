"""What new weights cost the embedded engine: copied in place, or loaded as a second model, as it was done before.

python -m benchmarks.new_weights                 the demo's policy, in shared memory
python -m benchmarks.new_weights --model DIR     a model of yours instead

Each way is a process of its own, and each has requests in flight all the time.
"""

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from safetensors.torch import load_file, save_file
from transformers.utils import logging as transformers_logging

from services.demo.task import checkpoint_directory
from services.rollout.engines.embedded import EmbeddedEngine, EmbeddedSettings
from services.rollout.engines.embedded.model import NewWeights, PolicyModel
from services.rollout.engines.engine import Request, Sampling
from shared.tree.draw import WeightVersion

ROWS = 16
DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16}
WAYS = ("in place", "second model")
SHARED_MEMORY = Path("/dev/shm")
"""Where replicas keep their snapshots."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Of several loads: seconds from call to return, seconds without a decode, and of these the seconds of copying;
    this process's own memory before the first of them, and the most during one."""

    load_seconds: list[float]
    pause_seconds: list[float]
    copy_seconds: list[float]
    served_bytes: int
    peak_bytes: int


def write_bundles(model: Path, dtype: torch.dtype, directory: Path) -> int:
    """The model, and the model moved a little; returns the bytes of one."""
    weights = load_file(model / "model.safetensors")
    torch.manual_seed(0)
    for number in range(2):
        bundle = directory / str(number)
        shutil.copytree(model, bundle)
        moved = {
            name: (weight.float() * (1 + 0.01 * number * torch.randn(weight.shape))).to(dtype)
            for name, weight in weights.items()
        }
        save_file(moved, bundle / "model.safetensors", metadata={"format": "pt"})
    return sum(weight.numel() for weight in weights.values()) * dtype.itemsize


class OwnMemory:
    """Watches this process's memory that no file backs, every two milliseconds."""

    def __init__(self) -> None:
        self.peak_bytes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    @staticmethod
    def now() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))

    def __enter__(self) -> "OwnMemory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.002):
            self.peak_bytes = max(self.peak_bytes, self.now())


async def measure(directory: Path, num_loads: int) -> Measured:
    """Loads the two bundles in turn while requests are in flight; the first two loads warm up."""
    engine = EmbeddedEngine(EmbeddedSettings(cache_bytes=64 * 2**20))
    await engine.load(directory / "0", WeightVersion(1, 0))
    clients = [asyncio.create_task(_ask_forever(engine, row)) for row in range(ROWS)]
    load_seconds, pause_seconds, copy_seconds = [], [], _time_copies()
    served = peak = 0
    for number in range(1, num_loads + 3):
        await _decode_some(engine)
        served = served or OwnMemory.now()
        with OwnMemory() as memory:
            paused, started = _pause_sample(engine, "sum"), time.perf_counter()
            await engine.load(directory / str(number % 2), WeightVersion(1, number))
            seconds = time.perf_counter() - started
            while _pause_sample(engine, "count") < number:  # until the rows in flight are recomputed
                await asyncio.sleep(0)
        if number > 2:
            load_seconds.append(seconds)
            pause_seconds.append(_pause_sample(engine, "sum") - paused)
            peak = max(peak, memory.peak_bytes)
    for client in clients:
        client.cancel()
    await asyncio.gather(*clients, return_exceptions=True)
    await engine.close()
    return Measured(load_seconds, pause_seconds, copy_seconds[2:], served, peak)


def _time_copies() -> list[float]:
    """The seconds that each copy of weights into the model takes from now on."""
    seconds: list[float] = []
    adopt = PolicyModel.adopt

    def timed(served: PolicyModel, new: NewWeights) -> PolicyModel:
        started = time.perf_counter()
        model = adopt(served, new)
        seconds.append(time.perf_counter() - started)
        return model

    PolicyModel.adopt = timed  # type: ignore[method-assign]
    return seconds


async def _ask_forever(engine: EmbeddedEngine, row: int) -> None:
    while True:
        await engine.complete(Request((4, 2 + row, 5, 6), 60, Sampling(), frozenset(), row))


async def _decode_some(engine: EmbeddedEngine) -> None:
    wanted = engine.counters.decodes + 10
    while engine.counters.decodes < wanted:
        await asyncio.sleep(0.001)


def _pause_sample(engine: EmbeddedEngine, which: str) -> float:
    [metric] = engine.counters.pauses.collect()
    return next(sample.value for sample in metric.samples if sample.name.endswith(f"_{which}"))


def report(model: Path, dtype: str, num_loads: int) -> None:
    """Measures both ways with one type of bundle, and prints two rows."""
    with tempfile.TemporaryDirectory(dir=SHARED_MEMORY) as name:
        num_bytes = write_bundles(model, DTYPES[dtype], Path(name))
        for way in WAYS:
            command = [sys.executable, "-m", "benchmarks.new_weights", "--measure", name, "--way", way]
            command += ["--loads", str(num_loads)]
            found = Measured(**json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))
            figures = (
                spread(found.load_seconds),
                spread(found.pause_seconds),
                spread(found.copy_seconds),
                f"{found.served_bytes / 2**20:,.0f}",
                f"{found.peak_bytes / 2**20:,.0f}",
            )
            print(f"{dtype}, {num_bytes / 1e6:,.1f} MB | {way} | {' | '.join(figures)}", flush=True)


def spread(seconds: list[float]) -> str:
    """min / median / max, in milliseconds."""
    return " / ".join(f"{1e3 * one:,.0f}" for one in (min(seconds), median(seconds), max(seconds)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=checkpoint_directory())
    parser.add_argument("--loads", type=int, default=9)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    transformers_logging.set_verbosity_error()
    if arguments.measure is None:
        print("bundle | way | load ms: min / median / max | pause ms | of it copying ms | serving MiB | at most MiB")
        print("---|---|---|---|---|---|---")
        for dtype in DTYPES:
            report(arguments.model, dtype, arguments.loads)
        return
    if arguments.way != WAYS[0]:
        PolicyModel.open_weights = lambda *_: None  # type: ignore[method-assign]
    print(json.dumps(asdict(asyncio.run(measure(arguments.measure, arguments.loads)))))


if __name__ == "__main__":
    main()
