"""The directory in which a replica keeps weights: its own, of its user alone, and gone when it ends."""

import fcntl
import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path

from services.rollout.heartbeat import is_abandoned
from shared.errors import Conflict, InvalidInput

_LOCKS = Path("/proc/locks")


class SnapshotDirectory:
    """`<snapshots>/<run>/<name>`, locked while this process lives. What killed replicas of this host left beside it is
    removed: it may be memory.

    InvalidInput where another user could change the weights, Conflict where another replica has this name.
    """

    def __init__(self, snapshots: Path, run: str, name: str) -> None:
        parent = snapshots / run
        for directory in (snapshots, parent):
            _require_own(directory)
        for directory in parent.glob("*"):
            if is_abandoned(directory.name):
                _remove_unused(directory)
        self.path = parent / name
        _require_own(self.path)
        self._lock = _lock(self.path)
        if self._lock is None:
            raise Conflict(
                f"another replica named {name!r}, {_holder(self.path)}, keeps its weights in {self.path}; "
                "give this one another rollout.name, or stop that one"
            )

    def remove(self) -> None:
        """Deletes the directory and gives up the name. Blocking: disk."""
        if self._lock is not None:
            shutil.rmtree(self.path, ignore_errors=True)
            with suppress(OSError):  # another replica of the run keeps its weights there
                self.path.parent.rmdir()
            os.close(self._lock)
            self._lock = None


def resolve_user(snapshots: Path) -> Path:
    """`snapshots` with this user's number in place of `{uid}`."""
    return Path(str(snapshots).replace("{uid}", str(os.geteuid())))


def _require_own(directory: Path) -> None:
    """Makes the directory if there is none; InvalidInput unless this user alone can change what is in it."""
    remedy = "remove it, or set rollout.snapshots to a directory of your own"
    try:
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        found = directory.lstat()
        is_writable = os.access(directory, os.W_OK | os.X_OK)
    except FileNotFoundError:
        _require_own(directory)  # a replica that ended has just removed it
        return
    except OSError as error:
        raise InvalidInput(f"cannot keep weights in {directory}: {error.strerror}; {remedy}") from error
    if stat.S_ISLNK(found.st_mode):
        raise InvalidInput(f"{directory} is a symbolic link, whose owner could exchange weights; {remedy}")
    if found.st_uid not in (os.geteuid(), 0) or not is_writable:
        raise InvalidInput(f"{directory} belongs to user {found.st_uid}, this is {os.geteuid()}; {remedy}")
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not found.st_mode & stat.S_ISVTX:
        raise InvalidInput(
            f"others can write to {directory} (mode {stat.filemode(found.st_mode)}); chmod go-w, {remedy}"
        )


def _lock(directory: Path) -> int | None:
    """A descriptor that locks the directory while it is open; None if another process holds the lock."""
    while True:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), directory.stat()):
                    return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        os.close(descriptor)  # a replica that ended has just removed it
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)


def _remove_unused(directory: Path) -> None:
    with suppress(OSError):
        descriptor = _lock(directory)
        if descriptor is not None:
            shutil.rmtree(directory, ignore_errors=True)
            os.close(descriptor)


def _holder(directory: Path) -> str:
    """Which process holds the lock, where the kernel says it."""
    found = directory.stat()
    inode = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    with suppress(OSError):
        for words in map(str.split, _LOCKS.read_text(encoding="utf-8").splitlines()):
            if inode in words and "FLOCK" in words and int(words[4]) > 0:
                return f"process {words[4]}"
    return "another process"
