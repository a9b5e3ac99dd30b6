"""On paper: seconds from an optimizer step to the last replica, for sizes that this machine cannot hold.

python -m benchmarks.weights.scaling               the tables of docs/scaling.md
python -m benchmarks.weights.scaling --cores 16    more of them

A model with the rates that `python -m benchmarks.weights` measured; nothing of it was run at these sizes. An engine's
load, latencies and contention in the network are left out, and links carry 90% of their name.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from math import ceil, log2
from typing import NamedTuple

GB = 1e9
_USED = 0.9
"""Of a link's name."""
_SENDERS = 8
"""Threads that send at the learner: shared.runtime.zero_copy.NUM_THREADS."""
_CHUNK_BYTES = 32 << 20
"""Of which a replica has one whole before it passes it on."""
_STORE_SECONDS = 0.2
"""Until what was put into an object store can be had, and is asked for."""


@dataclass(frozen=True, slots=True)
class Rates:
    """CPU-seconds per GB, as measured (docs/results/weights.md): of the bundle, but for `send`, per GB that is sent."""

    write: float
    hash: float
    encode: float
    send: float
    receive: float
    apply: float
    share: float
    """Bytes of a delta over those of the bundle."""
    cores: float = 1
    """That prepare a version at the learner, and take it in at a replica: one each, as it is built."""


MEASURED = Rates(write=0.5, hash=0.3, encode=1.45, send=0.3, receive=1.05, apply=1.0, share=0.008)


class Way(StrEnum):
    """How bytes come to the replicas."""

    STAR = "star"
    """The learner sends to each."""
    CHAIN = "chain"
    """The learner sends to one, and each passes on, piece by piece, what it gets."""
    TREE = "tree"
    """The same with two that each passes to."""
    STORE = "store"
    """The learner puts them into an object store, from which all get them at the speed of their own links."""


class Reach(NamedTuple):
    """What is to be reached."""

    name: str
    bundle_bytes: float
    count: int
    gbits: float

    @property
    def bytes_per_second(self) -> float:
        return self.gbits * GB / 8 * _USED


class Cost(NamedTuple):
    """Of one version."""

    seconds: float
    """From the step to the last replica, without its engine's load."""
    prepare_seconds: float
    transfer_seconds: float
    take_seconds: float
    learner_cpu_seconds: float
    learner_bytes: float


def cost(fleet: Reach, way: Way, is_delta: bool, rates: Rates) -> Cost:
    """One version, by one way. A full transfer is taken in as it comes; a delta is applied after it."""
    gigabytes = fleet.bundle_bytes / GB
    num_bytes = fleet.bundle_bytes * (rates.share if is_delta else 1.0)
    prepare = (rates.write + rates.hash + (rates.encode if is_delta else 0.0)) * gigabytes / rates.cores
    copies = {Way.STAR: fleet.count, Way.CHAIN: 1, Way.TREE: 2, Way.STORE: 1}[way]
    sending = rates.send * copies * num_bytes / GB
    transfer = max(_on_links(fleet, way, num_bytes), sending / _SENDERS)
    take = (rates.apply if is_delta else rates.receive) * gigabytes / rates.cores
    seconds = prepare + (transfer + take if is_delta else max(transfer, take))
    return Cost(seconds, prepare, transfer, take, prepare * rates.cores + sending, copies * num_bytes)


def _on_links(fleet: Reach, way: Way, num_bytes: float) -> float:
    once = num_bytes / fleet.bytes_per_second
    chunk = min(_CHUNK_BYTES, num_bytes) / fleet.bytes_per_second
    if way is Way.STAR:
        return fleet.count * once
    if way is Way.CHAIN:
        return once + (fleet.count - 1) * chunk
    if way is Way.TREE:
        return 2 * once + 2 * chunk * (ceil(log2(fleet.count + 1)) - 1)
    return 2 * once + _STORE_SECONDS


def most_by_star(bundle_bytes: float, gbits: float, seconds: float, share: float) -> int:
    """To how many replicas the learner alone sends within some seconds."""
    return int(seconds * gbits * GB / 8 * _USED / (share * bundle_bytes))


def fleets() -> Iterator[Reach]:
    for name, bundle_bytes in (("8B", 16.1 * GB), ("70B", 141.1 * GB)):
        for count in (64, 512):
            for gbits in (10, 100):
                yield Reach(name, bundle_bytes, count, gbits)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in Rates.__dataclass_fields__:
        parser.add_argument(f"--{name}", type=float, default=getattr(MEASURED, name))
    rates = Rates(**vars(parser.parse_args()))
    print(", ".join(f"{name} {getattr(rates, name):g}" for name in Rates.__dataclass_fields__))
    for is_delta in (False, True):
        print(f"\n## Seconds from the step to the last replica, {'a delta' if is_delta else 'all bytes'}\n")
        print(f"| model | replicas | Gbit/s | prepare | {' | '.join(Way)} | take in |\n{'|---' * 9}|")
        for fleet in fleets():
            costs = [cost(fleet, way, is_delta, rates) for way in Way]
            ways = " | ".join(f"{one.seconds:,.0f} ({one.transfer_seconds:,.1f})" for one in costs)
            edges = f"{costs[0].prepare_seconds:,.0f} | {ways} | {costs[0].take_seconds:,.0f}"
            print(f"| {fleet.name} | {fleet.count} | {fleet.gbits:g} | {edges} |")
    _print_learner(rates)
    _print_reach(rates)


def _print_learner(rates: Rates) -> None:
    print("\n## What the learner spends on a version: CPU-seconds, GB sent\n")
    print("| model | replicas | full, star | full, tree | delta, star | delta, tree |\n|---|---|---|---|---|---|")
    for fleet in fleets():
        if fleet.gbits == 10:  # the link changes none of it
            costs = [cost(fleet, way, delta, rates) for delta in (False, True) for way in (Way.STAR, Way.TREE)]
            cells = " | ".join(f"{one.learner_cpu_seconds:,.0f}, {one.learner_bytes / GB:,.1f}" for one in costs)
            print(f"| {fleet.name} | {fleet.count} | {cells} |")


def _print_reach(rates: Rates) -> None:
    print("\n## To how many replicas the learner alone sends a delta\n")
    print("| model | Gbit/s | in 10 s | in 60 s |\n|---|---|---|---|")
    for fleet in fleets():
        if fleet.count == 64:
            size = fleet.bundle_bytes, fleet.gbits
            cells = " | ".join(f"{most_by_star(*size, seconds, rates.share):,}" for seconds in (10, 60))
            print(f"| {fleet.name} | {fleet.gbits:g} | {cells} |")


if __name__ == "__main__":
    main()
