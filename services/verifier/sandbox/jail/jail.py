"""The jail: all layers of isolation that this machine allows."""

import os
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.verifier.sandbox.jail.jail_user import JailUser, probe_jail_user
from services.verifier.sandbox.jail.landlock import LandlockRuleset, landlock_version
from services.verifier.sandbox.jail.namespaces import build_root, enter_namespaces, fork_first_process, try_namespaces
from services.verifier.sandbox.jail.resource_limits import apply_common_limits, apply_limits, read_address_space
from services.verifier.sandbox.jail.scratch import ScratchFolders
from services.verifier.sandbox.jail.syscall_filter import SyscallFilter, compile_filter
from services.verifier.sandbox.jail.syscall_policy import AARCH64, X86_64, Machine, Purpose, build_syscall_policy
from services.verifier.sandbox.kernel import seal
from services.verifier.sandbox.messages import ON, READY_SEAL, SCRATCH_FOLDERS, JailOptions, LaunchRequest
from services.verifier.sandbox.sandbox import Role

_WRITABLE = ("/dev/null",)
# Without these the kernel starts no executable.
_LOADERS = ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")


def _find_readable_paths() -> tuple[str, ...]:
    """What Python reads while it runs: its library, shared libraries, time zones."""
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


# Which files may be opened and which system calls made, as far as this machine can bind them.
Confinement = tuple[LandlockRuleset | SyscallFilter, ...]


@dataclass(frozen=True, slots=True)
class Jail:
    """What binds each child, and the state of each layer in words."""

    user: JailUser
    confinement_of_role: Mapping[int, Confinement]
    own_bytes: int
    num_other_processes: int
    scratch: ScratchFolders
    readable: tuple[str, ...]
    filter_with_files: tuple[SyscallFilter, ...]
    layers: Mapping[str, str]

    def apply(self, launch: LaunchRequest, parent: int) -> None:
        """Binds this process for good, then sets READY_SEAL. Raises OSError when a layer fails that worked here."""
        confinement = self.confinement_of_role[launch.role]
        if launch.limits.file_bytes:
            confinement = self._enter_folder(self.scratch.path(launch))
        apply_limits(launch.limits, self.own_bytes, self.num_other_processes)
        self.user.become(launch.user_index, parent)
        for layer in confinement:
            layer.apply()
        seal(1, READY_SEAL)

    def _enter_folder(self, folder: str) -> Confinement:
        """Goes there; what binds a process that may keep files there, and there alone."""
        os.chdir(folder)
        landlock = (LandlockRuleset(self.readable, _WRITABLE, folders=(folder,)),) if landlock_version() else ()
        return (*landlock, *self.filter_with_files)


def enter_jail(options: JailOptions) -> Jail:
    """Moves this process (the fork-server) into namespaces where allowed, and prepares what binds its children.

    With namespaces it returns in another process than it was called in.
    """
    readable = (*_find_readable_paths(), *_DEVICES, *options.readable)
    version = landlock_version()
    namespaces = "switched off"
    if options.uses_namespaces:
        namespaces = _enter_namespaces((*readable, *options.executable), version > 0, options.max_processes)
    user = probe_jail_user(options.max_processes, os.__file__)
    machine = next((m for m in (X86_64, AARCH64) if m.name == os.uname().machine), None)
    apply_common_limits()
    user.prepare_parent()
    python = _confine(readable, (), machine, Purpose.PYTHON)
    scratch = _find_scratch(namespaces, user, version)
    return Jail(
        user,
        {
            **{int(role): python for role in (Role.SCRIPT, Role.SOLUTION, Role.JUDGE)},
            int(Role.COMMAND): _confine(readable, options.executable, machine, Purpose.COMMAND),
            int(Role.NATIVE): _confine(_DEVICES, (), machine, Purpose.NATIVE),
        },
        read_address_space(),
        _count_other_processes(options.max_processes, user, in_namespaces=not namespaces),
        scratch,
        readable,
        _filter_calls(machine, Purpose.FILES),
        {
            "namespaces": namespaces or "on",
            "own user": user.obstacle or "on",
            "landlock": f"on (version {version})" if version else "the kernel has no Landlock (5.13 or later, enabled)",
            "system calls": "on" if machine else f"no table for {os.uname().machine}",
            "limits": "on",
            SCRATCH_FOLDERS: scratch.obstacle or ON,
        },
    )


def _confine(
    readable: Sequence[str], executable: Sequence[str], machine: Machine | None, purpose: Purpose
) -> Confinement:
    layers: list[LandlockRuleset] = []
    if landlock_version():
        layers.append(LandlockRuleset(readable, _WRITABLE, (*executable, *_LOADERS) if executable else ()))
    return (*layers, *_filter_calls(machine, purpose))


def _filter_calls(machine: Machine | None, purpose: Purpose) -> tuple[SyscallFilter, ...]:
    return (SyscallFilter(compile_filter(build_syscall_policy(machine, purpose))),) if machine else ()


def _find_scratch(namespaces: str, user: JailUser, landlock: int) -> ScratchFolders:
    """Only a file system of its own bounds what a program writes, and something must bar it from those of others."""
    obstacle = f"they need namespaces: {namespaces}" if namespaces else ""
    if not obstacle and not landlock and not user.has_own_uid:
        obstacle = "they need Landlock, or users of their own"
    return ScratchFolders(user.uid_of, obstacle)


def _enter_namespaces(paths: Sequence[str], shows_proc: bool, num_folders: int) -> str:
    """The obstacle; "" when this is now the first process of the new namespaces."""
    obstacle = try_namespaces(paths, shows_proc)
    if not obstacle:
        enter_namespaces()
        fork_first_process()
        build_root(paths, shows_proc, num_folders)
    return obstacle


def _count_other_processes(max_processes: int, user: JailUser, in_namespaces: bool) -> int:
    """How many processes and threads a child's user may have besides the child's threads: the kernel counts by user."""
    if user.has_own_uid:
        return 1
    if in_namespaces:
        return max_processes + 2
    return max_processes + sum(_count_own_threads(pid) for pid in os.listdir("/proc") if pid.isdigit())


def _count_own_threads(pid: str) -> int:
    """The threads of a process, if it is this user's."""
    try:
        return len(os.listdir(f"/proc/{pid}/task")) if os.stat(f"/proc/{pid}").st_uid == os.geteuid() else 0
    except OSError:
        return 0
