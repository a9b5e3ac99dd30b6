"""Namespaces around the fork-server: no network, no other processes, a root directory with nothing but Python."""

import ctypes
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass

from services.verifier.sandbox import kernel

_NEW_MOUNTS, _NEW_UTS, _NEW_IPC, _NEW_USER, _NEW_PIDS, _NEW_NETWORK = (
    0x00020000,
    0x04000000,
    0x08000000,
    0x10000000,
    0x20000000,
    0x40000000,
)
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_BIND, _MS_REC, _MS_PRIVATE = 2, 4, 8, 4096, 16384, 1 << 18
_DETACH = 2
_PIVOT_ROOT_OF_MACHINE = {"x86_64": 155, "aarch64": 41}
_MOUNT_SETATTR = 442
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_READ_ONLY, _NO_SETUID = 0x1, 0x2

# Directories that can be covered by the new root while it is built.
_BUILDING_SITES = ("/tmp", "/run", "/mnt", "/var/tmp")  # noqa: S108 - nothing is written there: a file system is put over it


@dataclass(frozen=True, slots=True)
class RootDirectory:
    """What the new root directory holds: paths shown as they are, read-only, and /proc if asked for."""

    paths: Sequence[str]
    shows_proc: bool


def try_namespaces(root: RootDirectory) -> str:
    """Enters and builds in a process of its own. Returns the obstacle, or nothing when all of it worked."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            enter_namespaces()
            grandchild = os.fork()
            if grandchild == 0:
                build_root(root)
                os._exit(0)
            os._exit(os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]))
        except OSError as error:
            os.write(writer, str(error).encode())
        finally:
            os._exit(1)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        obstacle = pipe.read().decode()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return obstacle or ("" if code == 0 else f"the trial ended with {code}")


def enter_namespaces() -> None:
    """Leaves the machine's namespaces; the *next* child is the first process of the new ones."""
    flags = _NEW_MOUNTS | _NEW_UTS | _NEW_IPC | _NEW_PIDS | _NEW_NETWORK
    uid, gid = os.geteuid(), os.getegid()
    if uid != 0:
        flags |= _NEW_USER
    kernel.checked(kernel.LIBC.unshare(flags), "unshare")
    if uid != 0:
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{uid} {uid} 1")
        _write("/proc/self/gid_map", f"{gid} {gid} 1")


def fork_first_process() -> None:
    """Forks the first process of the new namespaces and returns in it; the caller waits for it and ends as it ended."""
    child = os.fork()
    if child != 0:
        os.closerange(0, 1 << 16)
        os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 0xFF)
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)


def build_root(root: RootDirectory) -> None:
    """Replaces the root directory by an empty one that shows `root`."""
    _mount("none", "/", None, _MS_REC | _MS_PRIVATE)
    site = next(
        site for site in _BUILDING_SITES if os.path.isdir(site) and not any(p.startswith(site) for p in root.paths)
    )
    _mount("tmpfs", site, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=755,size=1m")
    for path in root.paths:
        if os.path.exists(path):
            _show(path, site + path)
    os.makedirs(f"{site}/dev", exist_ok=True)
    if root.shows_proc:
        os.mkdir(f"{site}/proc")
        # Each process sees itself there, and no other.
        _mount("proc", f"{site}/proc", "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, "hidepid=2,subset=pid")
        for number, name in enumerate(("stdin", "stdout", "stderr")):
            os.symlink(f"/proc/self/fd/{number}", f"{site}/dev/{name}")
    _make_read_only(site)
    os.chdir(site)
    kernel.system_call(_PIVOT_ROOT_OF_MACHINE[os.uname().machine], b".", b".")
    kernel.checked(kernel.LIBC.umount2(b".", _DETACH), "umount2")
    os.chdir("/")


def _show(path: str, place: str) -> None:
    if os.path.isdir(path):
        os.makedirs(place, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(place), exist_ok=True)
        os.close(os.open(place, os.O_CREAT | os.O_WRONLY, 0o644))
    _mount(path, place, None, _MS_BIND | _MS_REC)


def _make_read_only(site: str) -> None:
    attributes = (ctypes.c_uint64 * 4)(_READ_ONLY | _NO_SETUID, 0, 0, 0)
    kernel.system_call(
        _MOUNT_SETATTR,
        _AT_FDCWD,
        site.encode(),
        _AT_RECURSIVE,
        ctypes.c_void_p(ctypes.addressof(attributes)),
        ctypes.sizeof(attributes),
    )


def _mount(source: str, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    arguments = [text.encode() if text is not None else None for text in (source, target, kind)]
    data = options.encode() if options else None
    kernel.checked(kernel.LIBC.mount(*arguments, ctypes.c_ulong(flags), data), f"mount {target}")


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
