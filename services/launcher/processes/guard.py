"""Outlives its launcher by a moment: when that one is gone, however it went, it ends the services it had started.

The launcher writes one line per event to this process's standard input: `add <rank> <group> <grace seconds> <name>`
when a service started, `remove <group>` when it ended. The end of the input is the launcher's end, orderly (nothing
is left to do) or by SIGKILL: services are then ended rank by rank, the lowest first.
"""

import json
import signal
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from services.launcher.processes import process_group


@dataclass(frozen=True, slots=True)
class Guarded:
    """A service under guard: `rank` orders the ends, `group` is its process group."""

    rank: int
    group: int
    grace_seconds: float
    name: str


def read(lines: Iterable[str]) -> list[Guarded]:
    """Follows the launcher's lines to their end; returns what was still running then, in the order to end it."""
    running: dict[int, Guarded] = {}
    for line in lines:
        match line.split():
            case ["add", rank, group, grace, name]:
                running[int(group)] = Guarded(int(rank), int(group), float(grace), name)
            case ["remove", group]:
                running.pop(int(group), None)
    return sorted(running.values(), key=lambda guarded: (guarded.rank, guarded.name))


def end_all(left: Iterable[Guarded]) -> None:
    """Ends the services rank by rank, and says so as one event per rank."""
    for _, together in groupby(left, key=lambda guarded: guarded.rank):
        members = list(together)
        killed = process_group.end([one.group for one in members], max(one.grace_seconds for one in members))
        names = [one.name for one in members]
        forced = [one.name for one in members if one.group in killed]
        print(json.dumps({"time": time.time(), "event": "orphans_ended", "names": names, "killed": forced}), flush=True)


def main() -> int:
    """Runs until the launcher's end; a signal meant for the terminal's job does not stop it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    end_all(read(sys.stdin))
    return 0


if __name__ == "__main__":
    sys.exit(main())
