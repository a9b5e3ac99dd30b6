"""The guard process: when its launcher is gone, however it ended, it stops the services that the launcher started.

The launcher writes one line per event to the guard's standard input: `add <order> <group> <grace seconds> <name>` when
a service has started, `remove <group>` when it has ended. The input closes when the launcher exits or is killed; the
guard then stops the services that are left, the lowest order first.
"""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Self

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


class GuardProcess:
    """The guard as the launcher sees it: a child process that is told which services run."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, log: Path) -> Self:
        """Starts the guard in its own session, so that no signal of the terminal reaches it."""
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "ibtpo.run_module", __name__),
                stdin=asyncio.subprocess.PIPE,
                stdout=output,
                stderr=output,
                env={**os.environ, "PYTHONSAFEPATH": "1"},  # the user's own `services` is not ours
                start_new_session=True,
            )
        return cls(process)

    def add(self, name: str, group: int, order: int, grace_seconds: float) -> None:
        """Reports a service that has started."""
        self._write(f"add {int(order)} {group} {grace_seconds} {name}\n")

    def remove(self, group: int) -> None:
        """Reports that the service of this process group has ended."""
        self._write(f"remove {group}\n")

    async def close(self) -> None:
        """Closes the guard's input and waits: the guard stops the services that are left, then exits."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        await self._process.wait()

    def _write(self, line: str) -> None:
        if self._process.stdin is not None and not self._process.stdin.is_closing():
            self._process.stdin.write(line.encode())


def main() -> int:
    """Runs until the launcher ends; Ctrl-C and a closed terminal do not stop the guard itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop_services(read_events(sys.stdin))
    return 0


if __name__ == "__main__":
    sys.exit(main())
