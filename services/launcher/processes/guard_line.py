"""The launcher's line to the guard process (services.launcher.processes.guard)."""

import asyncio
import sys
from pathlib import Path


class GuardLine:
    """Tells the guard what runs; the line's end, however this process goes, is the guard's cue."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, log: Path) -> "GuardLine":
        """Starts it in a session of its own, where no terminal signal reaches it."""
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "services.launcher.processes.guard",
                stdin=asyncio.subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        return cls(process)

    def add(self, name: str, group: int, rank: int, grace_seconds: float) -> None:
        """From now on the group ends with this launcher."""
        self._write(f"add {int(rank)} {group} {grace_seconds} {name}\n")

    def remove(self, group: int) -> None:
        """The group has ended."""
        self._write(f"remove {group}\n")

    async def close(self) -> None:
        """Lets it go; it ends what was not removed, and then itself."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        await self._process.wait()

    def _write(self, line: str) -> None:
        if self._process.stdin is not None and not self._process.stdin.is_closing():
            self._process.stdin.write(line.encode())
