"""One SGLang process with all processes that it starts: started, read and stopped as a whole."""

import asyncio
import os
import re
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Self

from services.rollout.engines.sglang.launch import die_with_parent
from shared.errors import Unavailable
from shared.runtime import child_process
from shared.runtime.child_process import describe_exit
from shared.runtime.logs import event_logger
from shared.runtime.loops import cancel

log = event_logger(__name__)

_KEPT_LINES = 30
_MAX_LINE_BYTES = 1 << 16
_LAST_OUTPUT_SECONDS = 1.0
_GRACE_SECONDS = 8.0
"""SGLang takes about 4 s to end after SIGTERM."""
_SHARED_FILE = re.compile(r"/\S+/shm/sglang_\S+")


class ServerProcess:
    """It leads a session and thus a process group."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._shared_files: set[str] = set()
        self._reading = asyncio.create_task(self._read_output(), name="sglang-output")

    @classmethod
    async def start(cls, command: tuple[str, ...], environment: Mapping[str, str]) -> Self:
        """Starts the command, which dies with this process; Unavailable if this host cannot start it."""
        try:
            process = await asyncio.create_subprocess_exec(
                *die_with_parent(command, os.getpid()),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env=dict(environment),
                limit=_MAX_LINE_BYTES,
                start_new_session=True,
            )
        except OSError as error:
            raise Unavailable(f"SGLang cannot be started: {error}") from error
        log.info("sglang_started", pid=process.pid, command=" ".join(command))
        return cls(process)

    @property
    def pid(self) -> int:
        """Of the process and of its group."""
        return self._process.pid

    @property
    def has_exited(self) -> bool:
        return self._process.returncode is not None

    async def wait(self) -> str:
        """Waits for its end and its last output; returns how it ended."""
        code = await self._process.wait()
        # its own output is there at once, but its children may keep the pipe open
        await asyncio.wait({self._reading}, timeout=_LAST_OUTPUT_SECONDS)
        return describe_exit(code)

    def last_output(self) -> str:
        return "\n".join(self._lines)

    def note_shared_files(self) -> None:
        """Takes note of the files in shared memory that its processes have mapped: killed, they leave them there."""
        for pid in child_process.processes_of(self.pid):
            with suppress(OSError):
                maps = Path(f"/proc/{pid}/maps").read_text(encoding="utf-8", errors="replace")
                self._shared_files.update(_SHARED_FILE.findall(maps))

    def _delete_shared_files(self) -> None:
        for path in self._shared_files:
            with suppress(OSError):
                Path(path).unlink(missing_ok=True)

    async def stop(self, grace_seconds: float = _GRACE_SECONDS) -> None:
        """Terminates it, kills what is left of its group after `grace_seconds`, and deletes its shared memory."""
        self.note_shared_files()
        await child_process.stop(self._process, grace_seconds)
        self._delete_shared_files()
        await cancel([self._reading])

    async def _read_output(self) -> None:
        assert self._process.stdout is not None
        while True:
            try:
                line = await self._process.stdout.readline()
            except ValueError:  # an overlong line: the buffer has dropped it
                continue
            if not line:
                return
            text = line.decode("utf-8", "replace").rstrip()
            if text:
                self._lines.append(text)
                log.debug("sglang_output", line=text)
