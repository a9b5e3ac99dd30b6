"""The self-test at start: tries in the jail what must not work there, and names the layer that allowed it."""

import json
from collections.abc import Awaitable, Callable, Mapping

from services.verifier.sandbox.sandbox import EndReason, Limits, Program, ProgramRun

_LIMITS = Limits(wall_seconds=5.0, cpu_seconds=5.0, memory_bytes=128 << 20, output_bytes=1 << 20)

# All in one process. Each raises if it is contained, and does no harm if it is not.
_ATTEMPTS = {
    "landlock or a namespace": {
        "read /etc/passwd": "open('/etc/passwd').read()",
        "list /tmp": "os.listdir('/tmp')",
        "list processes": "os.listdir('/proc')",
        "write a file": "os.open('/tmp', os.O_TMPFILE | os.O_WRONLY)",
        "make a directory": "[os.mkdir('/tmp/ibtpo-self-test'), os.rmdir('/tmp/ibtpo-self-test')]",
    },
    "system calls": {
        "fork": "os.fork() or os._exit(0)",
        "open a socket": "socket.socket()",
        "open a unix socket": "socket.socket(socket.AF_UNIX)",
        "signal the parent": "os.kill(os.getppid(), 0)",
        "change root": "os.chroot('/')",
        "own a descriptor's signals": "fcntl.fcntl(0, fcntl.F_SETOWN, os.getppid())",
        "limit the parent": "resource.prlimit(os.getppid(), resource.RLIMIT_CORE, (0, 0))",
        "make an anonymous file": "os.memfd_create('x')",
    },
    "limits": {
        "raise a limit": "resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)",
        "take much memory": "bytearray(4 << 30)",
        "take many threads": "[threading.Thread(target=time.sleep, args=[1], daemon=True).start() for _ in range(999)]",
    },
    "cleared environment": {
        "see the environment": "1 / len(set(os.environ) - {'LANG', 'HOME', 'PATH'})",
        "keep descriptors": "1 / sum(map(is_open, range(3, 64)))",
    },
    # Last, since these end the program if they work.
    "no new programs": {
        "change user": "os.setuid(0 if os.getuid() else 12345)",
        "execute": "os.execv('/bin/true', ['true'])",
    },
}

_PROGRAM = """
import fcntl, json, os, resource, socket, threading, time
def is_open(number):
    try:
        return bool(os.fstat(number))
    except OSError:
        return False
for layer, attempts in json.loads(input()).items():
    for name, attempt in attempts.items():
        try:
            eval(attempt)
            print(json.dumps([layer, name]), flush=True)
        except (OSError, MemoryError, RuntimeError, ValueError, ZeroDivisionError):
            pass
print("[]")
"""

# Each of these must kill its process.
_VIOLATIONS = {"ptrace": (101, 117), "unshare": (272, 97), "io_uring_setup": (425, 425), "bpf": (321, 280)}
_VIOLATION = """
import ctypes, os
ctypes.CDLL(None).syscall({0} if os.uname().machine == "x86_64" else {1}, 0, 0, 0, 0)
"""


# (layer, name, source, the one reason for which it must end, limits)
_TRIALS = (
    *(
        ("system calls", name, _VIOLATION.format(*numbers), EndReason.VIOLATION, _LIMITS)
        for name, numbers in _VIOLATIONS.items()
    ),
    ("limits", "print without end", "while True: print('x' * 65536)", EndReason.OUTPUT_LIMIT, _LIMITS),
    ("wall clock", "sleep", "import time; time.sleep(60)", EndReason.TIMED_OUT, Limits(wall_seconds=0.2)),
)


async def find_gap(
    run: Callable[[Program, Limits], Awaitable[ProgramRun]], layers: Callable[[], Mapping[str, str]]
) -> str | None:
    """The first thing that worked and must not, with the layer that allowed it; None if the jail holds."""
    survey = await run(Program(_PROGRAM.encode(), stdin=json.dumps(_ATTEMPTS).encode()), _LIMITS)
    findings = [json.loads(line) for line in survey.stdout.splitlines()]
    for layer, name in filter(None, findings):
        return _describe_gap(layer, name, layers())
    if not survey.is_clean or not findings:
        errors = survey.stderr.decode(errors="replace").strip()[-500:]
        return f"the self-test did not run ({survey.end_reason.value}, exit code {survey.exit_code}): {errors}"
    for layer, name, source, expected, limits in _TRIALS:
        end_reason = (await run(Program(source.encode()), limits)).end_reason
        if end_reason is not expected:
            return _describe_gap(layer, f"{name} (it {end_reason.value})", layers())
    return None


def _describe_gap(layer: str, name: str, layers: Mapping[str, str]) -> str:
    state = "; ".join(f"{known}: {state}" for known, state in layers.items())
    return f"the sandbox lacks the layer {layer!r}: model code could {name} (layers: {state}; see docs/sandbox.md)"
