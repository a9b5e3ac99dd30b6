"""One SGLang process with all that it starts: begun, listened to, ended as a whole."""

import asyncio
import os
from collections import deque
from collections.abc import Mapping
from typing import Self

from services.rollout.engines.sglang.launch import die_with_parent
from shared.errors import Unavailable
from shared.runtime import child_process
from shared.runtime.child_process import describe_exit
from shared.runtime.logs import event_logger

log = event_logger(__name__)

_TAIL_LINES = 30
_MAX_LINE_BYTES = 1 << 16
_LAST_WORDS_SECONDS = 1.0
_GRACE_SECONDS = 8.0
"""SGLang takes about 4 s to end by itself."""


class ServerProcess:
    """It leads a session, and so a process group, of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._listening = asyncio.create_task(self._listen(), name="sglang-output")

    @classmethod
    async def start(cls, command: tuple[str, ...], environment: Mapping[str, str]) -> Self:
        """Starts the command, bound to this process's life; Unavailable when this machine cannot start one more."""
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
        """Of the process, and of the group it leads."""
        return self._process.pid

    @property
    def has_exited(self) -> bool:
        """Whether the leading process is gone."""
        return self._process.returncode is not None

    async def wait(self) -> str:
        """Waits for its end and for its last words, and says how it went."""
        code = await self._process.wait()
        # what it started may hold its output open; its own words are there at once
        await asyncio.wait({self._listening}, timeout=_LAST_WORDS_SECONDS)
        return describe_exit(code)

    def tail(self) -> str:
        """The last lines that it wrote."""
        return "\n".join(self._tail)

    async def end(self, grace_seconds: float = _GRACE_SECONDS) -> None:
        """Asks it to end, and kills whatever of its group is left after the grace."""
        await child_process.stop(self._process, grace_seconds)
        self._listening.cancel()
        await asyncio.gather(self._listening, return_exceptions=True)

    async def _listen(self) -> None:
        assert self._process.stdout is not None
        while True:
            try:
                line = await self._process.stdout.readline()
            except ValueError:  # longer than any that matters: what the buffer held of it is gone
                continue
            if not line:
                return
            text = line.decode("utf-8", "replace").rstrip()
            if text:
                self._tail.append(text)
                log.debug("sglang_says", line=text)
