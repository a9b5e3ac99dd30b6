"""Namespaces around the fork-server: no network, no other processes, a root directory that holds only Python."""

import ctypes
import os
import signal
import struct
from collections.abc import Sequence

from services.verifier.sandbox import kernel

_NEW_MOUNTS, _NEW_UTS, _NEW_IPC = 0x00020000, 0x04000000, 0x08000000
_NEW_USER, _NEW_PIDS, _NEW_NETWORK = 0x10000000, 0x20000000, 0x40000000
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_BIND, _MS_REC, _MS_PRIVATE = 2, 4, 8, 4096, 16384, 1 << 18
_DETACH = 2
_PIVOT_ROOT_OF_MACHINE = {"x86_64": 155, "aarch64": 41}
_MOUNT_SETATTR = 442
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_READ_ONLY, _NO_SETUID = 0x1, 0x2

_MAX_FILES = 1024

# The new root directory is built over one of these.
_MOUNT_POINTS = ("/tmp", "/run", "/mnt", "/var/tmp")  # noqa: S108 - nothing is written to the directory itself


def try_namespaces(paths: Sequence[str], shows_proc: bool) -> str:
    """Tries everything in another process. Returns the obstacle, "" if it worked."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            enter_namespaces()
            grandchild = os.fork()
            if grandchild == 0:
                build_root(paths, shows_proc)
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
    """Leaves the machine's namespaces. The *next* child is the first process of the new ones."""
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
    """Forks the first process of the new namespaces and returns there; the caller waits for it and exits likewise."""
    child = os.fork()
    if child != 0:
        os.closerange(0, 1 << 16)
        os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 0xFF)
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)


def build_root(paths: Sequence[str], shows_proc: bool, num_folders: int = 0) -> None:
    """Replaces the root directory by one that shows, read-only, only these paths, and /proc if wanted.

    It has `num_folders` empty folders over which scratch folders can be mounted.
    """
    _mount("none", "/", None, _MS_REC | _MS_PRIVATE)
    target = next(
        point for point in _MOUNT_POINTS if os.path.isdir(point) and not any(p.startswith(point) for p in paths)
    )
    _mount("tmpfs", target, "tmpfs", _MS_NOSUID | _MS_NODEV, "mode=755,size=1m")
    for path in paths:
        if os.path.exists(path):
            _show(path, target + path)
    os.makedirs(f"{target}/dev", exist_ok=True)
    for number in range(num_folders):
        os.makedirs(target + scratch_path(number))
    if shows_proc:
        os.mkdir(f"{target}/proc")
        # There each process sees only itself.
        _mount("proc", f"{target}/proc", "proc", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, "hidepid=2,subset=pid")
        for number, name in enumerate(("stdin", "stdout", "stderr")):
            os.symlink(f"/proc/self/fd/{number}", f"{target}/dev/{name}")
    _make_read_only(target)
    os.chdir(target)
    kernel.system_call(_PIVOT_ROOT_OF_MACHINE[os.uname().machine], b".", b".")
    kernel.checked(kernel.LIBC.umount2(b".", _DETACH), "umount2")
    os.chdir("/")


def scratch_path(number: int) -> str:
    return f"/scratch/{number}"


def mount_scratch(number: int, num_bytes: int, uid: int) -> None:
    """Mounts an empty file system in memory for that many bytes, which belongs to the user."""
    options = f"mode=700,size={num_bytes},nr_inodes={_MAX_FILES},uid={uid},gid={uid}"
    _mount("none", scratch_path(number), "tmpfs", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, options)


def unmount_scratch(number: int) -> None:
    kernel.checked(kernel.LIBC.umount2(scratch_path(number).encode(), _DETACH), "umount2")


def _show(path: str, target: str) -> None:
    if os.path.isdir(path):
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    _mount(path, target, None, _MS_BIND | _MS_REC)


def _make_read_only(target: str) -> None:
    attributes = struct.pack("=4Q", _READ_ONLY | _NO_SETUID, 0, 0, 0)
    kernel.system_call(_MOUNT_SETATTR, _AT_FDCWD, target.encode(), _AT_RECURSIVE, attributes, len(attributes))


def _mount(source: str, target: str, file_system: str | None, flags: int, options: str | None = None) -> None:
    arguments = [text.encode() if text is not None else None for text in (source, target, file_system)]
    data = options.encode() if options else None
    kernel.checked(kernel.LIBC.mount(*arguments, ctypes.c_ulong(flags), data), f"mount {target}")


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)
