"""What a running process has used, as the kernel counts it."""

import resource
from dataclasses import dataclass
from pathlib import Path

_NANOSECONDS = 1e9
_PAGE_BYTES = resource.getpagesize()


@dataclass(frozen=True, slots=True)
class ProcessUsage:
    """Of all its threads, except `starved_seconds`: the longest for which one was ready but had no processor."""

    cpu_seconds: float = 0.0
    starved_seconds: float = 0.0
    resident_bytes: int = 0


def measure_usage(pidfd: int) -> ProcessUsage:
    """All zero if the process is gone or hidden."""
    try:
        fields = dict(line.split(":", 1) for line in Path(f"/proc/self/fdinfo/{pidfd}").read_text("ascii").splitlines())
        process = Path(f"/proc/{int(fields['Pid'])}")
        threads = [(task / "schedstat").read_text("ascii").split() for task in (process / "task").iterdir()]
        num_pages = int((process / "statm").read_text("ascii").split()[1])
        ran, waited = zip(*((int(thread[0]), int(thread[1])) for thread in threads), strict=True)
    except (OSError, KeyError, ValueError, IndexError):
        return ProcessUsage()
    return ProcessUsage(sum(ran) / _NANOSECONDS, max(waited) / _NANOSECONDS, num_pages * _PAGE_BYTES)
