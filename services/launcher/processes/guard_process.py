"""The guard (services.launcher.processes.guard) as the launcher sees it: a child process that reads events."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Self


class GuardProcess:
    """Reports to the guard which services run. When this process ends, however it does, the guard stops them."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, log: Path) -> Self:
        """Starts the guard in its own session, so that no signal of the terminal reaches it."""
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "services.launcher.processes.guard",
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
