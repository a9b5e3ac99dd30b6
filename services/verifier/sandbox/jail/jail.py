"""The jail: every layer that the fork-server could set up, put on by each child."""

import fcntl
import os
import resource
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.verifier.sandbox.jail.jail_user import JailUser, probe_jail_user
from services.verifier.sandbox.jail.landlock import LandlockRuleset, landlock_version
from services.verifier.sandbox.jail.namespaces import (
    RootDirectory,
    build_root,
    enter_namespaces,
    fork_first_process,
    try_namespaces,
)
from services.verifier.sandbox.jail.resource_limits import ResourceLimits, apply_common_limits
from services.verifier.sandbox.jail.syscall_filter import SyscallFilter, compile_filter
from services.verifier.sandbox.jail.syscall_policy import AARCH64, X86_64, Machine, build_syscall_policy
from services.verifier.sandbox.messages import LaunchRequest
from services.verifier.sandbox.sandbox import Role

# Set by a child on its standard output when the jail is complete: without it nothing of the program has run.
JAILED_SEAL = fcntl.F_SEAL_SEAL if hasattr(fcntl, "F_SEAL_SEAL") else 1
EXIT_NO_JAIL = 113

_WRITABLE = ("/dev/null",)
# What the kernel starts an executable with.
_LOADERS = ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")


def readable_paths() -> tuple[str, ...]:
    """What Python itself reads while it runs: its library, shared libraries, time zones."""
    triplet = sysconfig.get_config_var("MULTIARCH") or "x86_64-linux-gnu"
    candidates = (
        sysconfig.get_path("stdlib"),
        sysconfig.get_path("platstdlib"),
        os.path.join(sys.base_prefix, "lib"),
        f"/lib/{triplet}",
        f"/usr/lib/{triplet}",
        "/lib64",
        "/usr/lib64",
        "/usr/lib/locale",
        "/usr/share/zoneinfo",
    )
    # A system Python's own `lib` is all of /usr/lib.
    return tuple(dict.fromkeys(p for p in candidates if os.path.isdir(p) and p not in ("/usr/lib", "/lib")))


@dataclass(frozen=True, slots=True)
class JailOptions:
    """How many processes run at once, whether namespaces are wanted, what more may be read, and what executed."""

    max_processes: int
    namespaces: bool
    readable: Sequence[str]
    executable: Sequence[str]


@dataclass(frozen=True, slots=True)
class Confinement:
    """What may be opened and called; a layer that this machine lacks is None."""

    ruleset: LandlockRuleset | None
    filter: SyscallFilter | None

    def apply(self) -> None:
        if self.ruleset is not None:
            self.ruleset.apply()
        if self.filter is not None:
            self.filter.apply()


@dataclass(frozen=True, slots=True)
class Jail:
    """What each child puts on, and the state of each layer in words."""

    identity: JailUser
    for_python: Confinement
    for_commands: Confinement
    own_bytes: int
    num_own_processes: int
    layers: Mapping[str, str]

    def apply(self, launch: LaunchRequest, parent: int) -> None:
        """Binds this process for good, then leaves the mark. OSError when a layer that stood here fails."""
        ResourceLimits(
            launch.cpu_seconds,
            self.own_bytes + launch.memory_bytes,
            launch.output_bytes,
            self.num_own_processes + launch.num_threads,
        ).apply()
        self.identity.become(launch.user_index, parent)
        (self.for_commands if launch.role == Role.COMMAND else self.for_python).apply()
        fcntl.fcntl(1, fcntl.F_ADD_SEALS, JAILED_SEAL)


def enter_jail(options: JailOptions) -> Jail:
    """Puts this process (the fork-server) into namespaces where allowed, and prepares what children put on.

    Returns in another process than it was called in, when namespaces were entered.
    """
    readable = (*readable_paths(), *_DEVICES, *options.readable)
    version = landlock_version()
    root = RootDirectory((*readable, *options.executable), shows_proc=version > 0)
    namespaces = _enter_namespaces(root) if options.namespaces else "switched off"
    identity = probe_jail_user(options.max_processes, os.__file__)
    machine = next((m for m in (X86_64, AARCH64) if m.name == os.uname().machine), None)
    apply_common_limits()
    identity.prepare()
    return Jail(
        identity,
        _confine(readable, (), machine),
        _confine(readable, options.executable, machine),
        _own_address_space(),
        _num_processes_of_user(options.max_processes, identity, in_namespaces=not namespaces),
        {
            "namespaces": namespaces or "on",
            "own user": identity.obstacle or "on",
            "landlock": f"on (version {version})" if version else "the kernel has no Landlock (5.13 or later, enabled)",
            "system calls": "on" if machine else f"no table for {os.uname().machine}",
            "limits": "on",
        },
    )


def _confine(readable: Sequence[str], executable: Sequence[str], machine: Machine | None) -> Confinement:
    return Confinement(
        LandlockRuleset(readable, _WRITABLE, (*executable, *_LOADERS) if executable else ())
        if landlock_version()
        else None,
        SyscallFilter(compile_filter(build_syscall_policy(machine, is_for_commands=bool(executable))))
        if machine
        else None,
    )


def _enter_namespaces(root: RootDirectory) -> str:
    """The obstacle, or nothing when this is the first process of the new namespaces."""
    obstacle = try_namespaces(root)
    if not obstacle:
        enter_namespaces()
        fork_first_process()
        build_root(root)
    return obstacle


def _own_address_space() -> int:
    """This process's address space, that each child starts with."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 128 << 20


def _num_processes_of_user(max_processes: int, identity: JailUser, in_namespaces: bool) -> int:
    """How many tasks the jailed user may have before its own first thread: the kernel counts by user."""
    if identity.has_own_uid:
        return 1
    if in_namespaces:
        return max_processes + 2
    own = os.geteuid()
    return max_processes + sum(_num_tasks(pid) for pid in os.listdir("/proc") if pid.isdigit() and _owner(pid) == own)


def _owner(pid: str) -> int:
    try:
        return os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return -1


def _num_tasks(pid: str) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/task"))
    except OSError:
        return 0
