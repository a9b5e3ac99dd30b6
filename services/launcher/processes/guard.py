"""The guard process: when its launcher is gone, however it ended, it stops the services that the launcher started.

The launcher writes one line per event to the guard's standard input: `add <order> <group> <grace seconds> <name>` when
a service has started, `remove <group>` when it has ended. The input closes when the launcher exits or is killed; the
guard then stops the services that are left, the lowest order first.
"""

import json
import signal
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from shared.runtime import child_process


@dataclass(frozen=True, slots=True)
class GuardedService:
    """One running service: its place in the stop order, and its process group."""

    order: int
    group: int
    grace_seconds: float
    name: str


def read_events(lines: Iterable[str]) -> list[GuardedService]:
    """Reads the launcher's lines to their end; returns the services still running then, in the order to stop them."""
    running: dict[int, GuardedService] = {}
    for line in lines:
        match line.split():
            case ["add", order, group, grace, name]:
                running[int(group)] = GuardedService(int(order), int(group), float(grace), name)
            case ["remove", group]:
                running.pop(int(group), None)
    return sorted(running.values(), key=lambda service: (service.order, service.name))


def stop_services(services: Iterable[GuardedService]) -> None:
    """Stops the services, those of one order at once, and prints one event per order."""
    for _, together in groupby(services, key=lambda service: service.order):
        members = list(together)
        grace_seconds = max(one.grace_seconds for one in members)
        killed = child_process.stop_groups([one.group for one in members], grace_seconds)
        names = [one.name for one in members]
        forced = [one.name for one in members if one.group in killed]
        event = {"time": time.time(), "event": "orphans_stopped", "names": names, "killed": forced}
        print(json.dumps(event), flush=True)


def main() -> int:
    """Runs until the launcher ends; Ctrl-C and a closed terminal do not stop the guard itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop_services(read_events(sys.stdin))
    return 0


if __name__ == "__main__":
    sys.exit(main())
