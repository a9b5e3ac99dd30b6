"""The self-test at start: tries in the jail what must not work there, and names the layer that allowed it."""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace

from services.verifier.sandbox.messages import ON, SCRATCH_FOLDERS
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
        "open its own memory": "os.open('/proc/self/mem', os.O_RDONLY)",
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
        "share memory by a key": "checked(libc.shmget(0, 4096, 0o1600))",
        "use memory that is both written and run": "map_memory(WRITE | RUN, PRIVATE | ANONYMOUS)",
        "run new memory": "map_memory(RUN, PRIVATE | ANONYMOUS)",
        "make written memory run": "checked(libc.mprotect(map_memory(WRITE, PRIVATE | ANONYMOUS), 4096, RUN))",
        "run what it printed": "map_memory(RUN, PRIVATE, 1)",
        "run what it prints": "map_memory(RUN, SHARED, 1)",
        "run what it was given": "map_memory(RUN, PRIVATE, 0)",
        "run a shared device": "map_file(RUN, SHARED, '/dev/zero')",
        "run a file's code": "map_file(RUN, PRIVATE, os.__file__)",
    },
    "limits": {
        "compute without end": "find_unlimited('CPU')",
        "take address space without end": "find_unlimited('AS')",
        "write without end": "find_unlimited('FSIZE')",
        "open files without end": "find_unlimited('NOFILE')",
        "leave a core dump": "find_unlimited('CORE', 0)",
        "lock memory": "find_unlimited('MEMLOCK', 0)",
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

# Beside those, of a program that has a scratch folder of a megabyte.
_ATTEMPTS_WITH_FILES = {
    SCRATCH_FOLDERS: {
        "make a symbolic link": "os.symlink('/etc/passwd', 'symbolic')",
        "make a hard link": "[open('file', 'w').close(), os.link('file', 'hard')]",
        "make a pipe": "os.mkfifo('pipe')",
        "make a socket": "os.mknod('socket', stat.S_IFSOCK | 0o600)",
        "make a device": "os.mknod('device', stat.S_IFCHR | 0o600, os.makedev(1, 3))",
        "write beside its folder": "os.open('../file', os.O_CREAT | os.O_WRONLY)",
        "write to the root": "os.open('/file', os.O_CREAT | os.O_WRONLY)",
        "list the folders of others": "os.listdir('..')",
        "change a file of the system": "os.chmod(os.__file__, 0o600)",
        "run its file's code": "[write_file('code'), map_file(RUN, PRIVATE, 'code')]",
        "share its file's code": "[write_file('code'), map_file(RUN, SHARED, 'code')]",
        "write more than it may": "[write_file(f'part{number}') for number in range(99)]",
        "make files without end": "[os.mkdir(f'folder{number}') for number in range(9999)]",
        "execute its file": "[os.chmod('code', 0o700), os.execv('./code', ['code'])]",
    }
}
_USES_FILES = """
import os, sqlite3
print(os.listdir())
os.mkdir("folder")
with open("folder/one", "w") as file:
    file.write("text")
os.rename("folder/one", "two")
with sqlite3.connect("data") as data:
    data.execute("create table kept (number)")
print(open("two").read(), sorted(os.listdir()))
"""
_USED = b"[]\ntext ['data', 'folder', 'two']\n"

_PROGRAM = """
import ctypes, fcntl, json, os, resource, socket, stat, threading, time
libc = ctypes.CDLL(None)
libc.mmap.restype = ctypes.c_void_p
WRITE, RUN = 2, 4
SHARED, PRIVATE, ANONYMOUS = 1, 2, 32
def checked(result):
    if result in (-1, ctypes.c_void_p(-1).value):
        raise OSError
    return result
def map_memory(protection, flags, descriptor=-1):
    return ctypes.c_void_p(checked(libc.mmap(None, 4096, protection | 1, flags, descriptor, ctypes.c_long(0))))
def map_file(protection, flags, path):
    with open(path, "rb") as file:
        return map_memory(protection, flags, file.fileno())
def write_file(path):
    with open(path, "wb") as file:
        file.write(bytes(1 << 16))
def find_unlimited(name, most=1 << 40):
    return 1 / (resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))[1] not in range(most + 1))
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

# Calls the return instruction in its own data, for the case that all memory is executable here.
_RUN_DATA = """
import ctypes, os
code = ctypes.create_string_buffer(bytes.fromhex("c3" if os.uname().machine == "x86_64" else "c0035fd6"))
ctypes.CFUNCTYPE(None)(ctypes.addressof(code))()
"""

# (layer, name, source, the one reason for which it must end, limits)
_TRIALS = (
    *(
        ("system calls", name, _VIOLATION.format(*numbers), EndReason.VIOLATION, _LIMITS)
        for name, numbers in _VIOLATIONS.items()
    ),
    ("system calls", "run its data", _RUN_DATA, EndReason.CRASHED, _LIMITS),
    ("limits", "print without end", "while True: print('x' * 65536)", EndReason.OUTPUT_LIMIT, _LIMITS),
    ("wall clock", "sleep", "import time; time.sleep(60)", EndReason.TIMED_OUT, Limits(wall_seconds=0.2)),
)

Run = Callable[[Program, Limits], Awaitable[ProgramRun]]


async def find_gap(
    run: Run,
    layers: Callable[[], Mapping[str, str]],
    packages: Sequence[str] = (),
) -> str | None:
    """The first thing that worked and must not, with the layer that allowed it, or that must work and did not.

    None if the jail holds, and the packages can be imported there.
    """
    if gap := await _survey(run, layers, _ATTEMPTS, _LIMITS):
        return gap
    if layers().get(SCRATCH_FOLDERS) == ON:
        limits = replace(_LIMITS, file_bytes=1 << 20)
        if gap := await _survey(run, layers, {**_ATTEMPTS_WITH_FILES, **_ATTEMPTS}, limits):
            return gap
        used = await run(Program(_USES_FILES.encode()), limits)
        if used.stdout != _USED:
            return f"a program cannot use its scratch folder, or finds another's files in it: {_describe_errors(used)}"
    for layer, name, source, expected, limits in _TRIALS:
        end_reason = (await run(Program(source.encode()), limits)).end_reason
        if end_reason is not expected:
            return _describe_gap(layer, f"{name} (it {end_reason.value})", layers())
    for package in packages:
        imported = await run(Program(f"import {package}".encode()), Limits())
        if not imported.is_clean:
            errors = _describe_errors(imported)
            return f"code.packages: {package!r} cannot be imported in the jail; leave it out ({errors})"
    return None


async def _survey(
    run: Run, layers: Callable[[], Mapping[str, str]], attempts: Mapping[str, Mapping[str, str]], limits: Limits
) -> str | None:
    """The first of the attempts that worked, with the layer that allowed it."""
    survey = await run(Program(_PROGRAM.encode(), stdin=json.dumps(attempts).encode()), limits)
    findings = [json.loads(line) for line in survey.stdout.splitlines()]
    for layer, name in filter(None, findings):
        return _describe_gap(layer, name, layers())
    if not survey.is_clean or not findings:
        how = f"{survey.end_reason.value}, exit code {survey.exit_code}"
        return f"the self-test did not run ({how}): {_describe_errors(survey)}"
    return None


def _describe_errors(run: ProgramRun) -> str:
    return run.stderr.decode(errors="replace").strip()[-500:]


def _describe_gap(layer: str, name: str, layers: Mapping[str, str]) -> str:
    state = "; ".join(f"{known}: {state}" for known, state in layers.items())
    return f"the sandbox lacks the layer {layer!r}: model code could {name} (layers: {state}; see docs/sandbox.md)"
