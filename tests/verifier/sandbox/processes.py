"""What the tests of the sandbox see of its processes, through /proc."""

import os
from pathlib import Path

from services.verifier.sandbox.jail_sandbox import JailSandbox


def find_descendants(pid: int | str = "self") -> list[int]:
    """The process's children, their children and so on, also dead ones that nobody has reaped."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*"):
        try:
            children = (task / "children").read_text().split()
        except OSError:
            continue
        for child in map(int, children):
            found += [child, *find_descendants(child)]
    return found


def find_serving_pid(sandbox: JailSandbox) -> int:
    """The process that forks: the one started, or its first child when there are namespaces."""
    pid = sandbox.fork_server_pid
    assert pid is not None, "no fork-server runs"
    return pid if sandbox.layers["namespaces"] != "on" else find_descendants(pid)[0]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def count_descriptors(pid: int | str = "self") -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))
