"""Child processes that lead process groups: stops each with its group, describes exits, finds free ports."""

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

_POLL_SECONDS = 0.05
_GONE_SECONDS = 2.0
"""How long the kernel may take to free what killed processes held."""


def find_free_port() -> int:
    """A loopback port on which nobody listens now; another process may take it before the child does."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def describe_exit(code: int) -> str:
    """`exit code 2`, or, for the negative codes of asyncio and subprocess, `signal SIGKILL`."""
    if code >= 0:
        return f"exit code {code}"
    return f"signal {signal.Signals(-code).name}" if -code in set(signal.Signals) else f"signal {-code}"


def is_alive(pid: int) -> bool:
    """Whether the process exists; one that ended counts until its parent has waited for it."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def terminate(pid: int) -> None:
    """Sends SIGTERM to the leader alone: it may need its children to end well."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)


def kill_group(group: int) -> None:
    """Sends SIGKILL to every process of the group, if there is one."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def processes_of(group: int) -> Iterator[int]:
    """The processes of a group, where there is /proc; none elsewhere."""
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.getpgid(int(entry.name)) == group:
                yield int(entry.name)


def _wait_until_gone(group: int) -> None:
    deadline = time.monotonic() + _GONE_SECONDS
    while any(processes_of(group)) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)


async def stop(process: asyncio.subprocess.Process, grace_seconds: float) -> None:
    """Terminates the leader, waits at most `grace_seconds`, then kills what is left of its group and waits for that."""
    if process.returncode is None and grace_seconds > 0:
        terminate(process.pid)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_seconds):
                await process.wait()
    kill_group(process.pid)
    await process.wait()
    await asyncio.to_thread(_wait_until_gone, process.pid)


def stop_groups(groups: Sequence[int], grace_seconds: float) -> tuple[int, ...]:
    """As `stop`, blocking, for several groups at once, not only one's children. Returns the groups that it killed."""
    for group in groups:
        terminate(group)
    deadline = time.monotonic() + grace_seconds
    while (left := tuple(group for group in groups if is_alive(group))) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    for group in groups:
        kill_group(group)
    return left
