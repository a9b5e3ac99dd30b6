"""A learner's process and a process of replicas: how a version comes from the one to the other."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.weights import learner_side, replica_side
from benchmarks.weights.replica_side import Follow, Serving
from benchmarks.weights.usage import Usage
from shared.protocol.weights import Manifest
from shared.tree.draw import WeightVersion

_PATIENCE_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Delivered:
    """One version, as it came to all replicas that were waited for."""

    published: dict[str, Any]
    first_seconds: float
    """From the optimizer step to the first replica serving."""
    last_seconds: float
    cpu_seconds: float
    """Of sending and receiving, both processes together."""
    learner_cpu_seconds: float
    learner_bytes: int
    """The peak of the learner's process beyond what it held before."""
    replica_bytes: int

    @property
    def gigabytes(self) -> float:
        """Of the whole bundle."""
        return float(self.published["full_bytes"] / 1e9)


@dataclass(slots=True)
class Fleet:
    """Both processes, and which versions the replicas were heard to serve."""

    learner: Connection
    replicas: Connection
    count: int
    slow: frozenset[int] = frozenset()
    served: dict[int, WeightVersion] = field(default_factory=dict)
    newest: WeightVersion | None = None

    def deliver(self, *, anew: bool = False) -> Delivered:
        """Publishes a version and waits until all but the slow replicas serve it."""
        published = self.publish()
        before = self._usages()
        self.replicas.send(Follow(published["manifest"], anew))
        times = list(self._wait_for())
        after = self._usages()
        spent = [new.cpu_seconds - old.cpu_seconds for old, new in zip(before, after, strict=True)]
        grown = [max(0, new.peak_bytes - old.resident_bytes) for old, new in zip(before, after, strict=True)]
        return Delivered(
            published,
            min(times) - published["stepped"],
            max(times) - published["stepped"],
            sum(spent),
            spent[0],
            *grown,
        )

    def publish(self) -> dict[str, Any]:
        """Another version, which no replica has heard of yet."""
        published: dict[str, Any] = self.ask(self.learner, "publish")
        self.newest = Manifest.model_validate_json(published["manifest"]).version
        return published

    def settle(self) -> None:
        """Waits until all but the slow replicas serve the last version."""
        assert self.newest is not None
        missing = set(range(self.count)) - self.slow
        while any(self.served.get(number) != self.newest for number in missing):
            self._hear()

    def _wait_for(self) -> Iterator[float]:
        missing = set(range(self.count)) - self.slow
        while missing:
            heard = self._hear()
            if heard.version == self.newest and heard.replica in missing:
                missing.discard(heard.replica)
                yield heard.at

    def _hear(self) -> Serving:
        heard: Serving = _receive(self.replicas)
        self.served[heard.replica] = heard.version
        return heard

    def ask(self, pipe: Connection, order: object) -> Any:
        """The answer to an order; what replicas say meanwhile is noted."""
        pipe.send(order)
        while isinstance(answer := _receive(pipe), Serving):
            self.served[answer.replica] = answer.version
        return answer

    def _usages(self) -> tuple[Usage, Usage]:
        return self.ask(self.learner, "usage"), self.ask(self.replicas, "usage")


def _receive(pipe: Connection) -> Any:
    if not pipe.poll(_PATIENCE_SECONDS):
        raise SystemExit(f"benchmarks.weights: a process said nothing for {_PATIENCE_SECONDS:.0f} s")
    if isinstance(heard := pipe.recv(), Exception):
        raise SystemExit(f"benchmarks.weights: a replica failed: {heard!r}")
    return heard


@contextmanager
def fleet(
    directory: Path,
    num_bytes: int,
    count: int,
    *,
    seed: int = 0,
    slow_bytes_per_second: float = 0.0,
    learners: Path | None = None,
) -> Iterator[Fleet]:
    """Some replicas that have no version yet; with a pace, the first of them is slow. `learners`: where the learner's
    files lie, if not in `directory`, too."""
    directory.mkdir(parents=True)
    context = get_context("spawn")
    with _process(context, learner_side.run, (learners or directory) / "learner", num_bytes, seed) as learner:
        url = _receive(learner)
        with _process(context, replica_side.run, url, directory / "replicas", count, slow_bytes_per_second) as replicas:
            slow = frozenset({0} if slow_bytes_per_second else ())
            yield Fleet(learner, replicas, count, slow)


@contextmanager
def _process(context: Any, target: Any, *arguments: object) -> Iterator[Connection]:
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(theirs, *arguments))
    process.start()
    theirs.close()
    try:
        yield ours
    finally:
        with suppress(BrokenPipeError):
            ours.send(None)
        process.join(10)
        process.kill()
        process.join()
        ours.close()


def late_replicas(fleet: Fleet, num_versions: int, pace_seconds: float) -> tuple[int, bool]:
    """Publishes versions at a pace; how many of the replicas that are not slow ever served, when one was published, a
    version that is older than the run's staleness bound allows; and whether the slow one did (else it is none)."""
    late: set[int] = set()
    due = time.monotonic()
    for _ in range(num_versions):
        time.sleep(max(0.0, due - time.monotonic()))
        published = fleet.publish()
        due = time.monotonic() + pace_seconds
        fleet.replicas.send(Follow(published["manifest"], False))
        late.update(fleet.ask(fleet.replicas, "stale"))
    fleet.settle()
    return len(late - fleet.slow), bool(late & fleet.slow)
