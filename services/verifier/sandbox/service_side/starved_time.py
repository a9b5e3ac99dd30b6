"""How long a process that wanted to work has waited for a processor: that is the machine's doing, not its own."""

from pathlib import Path

_NANOSECONDS = 1e9


def starved_seconds(pidfd: int) -> float:
    """The longest that one of the process's threads has waited so; 0 where the kernel does not tell."""
    try:
        fields = dict(line.split(":", 1) for line in Path(f"/proc/self/fdinfo/{pidfd}").read_text().splitlines())
        tasks = Path(f"/proc/{int(fields['Pid'])}/task")
        waits = [int((task / "schedstat").read_text().split()[1]) for task in tasks.iterdir()]
    except (OSError, KeyError, ValueError, IndexError):
        return 0.0
    return max(waits, default=0) / _NANOSECONDS
