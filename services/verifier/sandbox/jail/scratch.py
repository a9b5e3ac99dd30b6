"""Scratch folders: file systems in memory, one for each program that may have files, and for its judge."""

import errno
from collections import Counter
from collections.abc import Callable

from services.verifier.sandbox.jail.namespaces import mount_scratch, scratch_path, unmount_scratch
from services.verifier.sandbox.messages import LaunchRequest


class ScratchFolders:
    """Those of the processes that run now, by the processes' user.

    A folder is made for the first process of its user and is gone with the last, so that no two runs share one.
    `obstacle`: why there can be none here.
    """

    def __init__(self, uid_of: Callable[[int], int], obstacle: str = "") -> None:
        self.obstacle = obstacle
        self._uid_of = uid_of
        self._num_processes: Counter[int] = Counter()

    def enter(self, launch: LaunchRequest) -> None:
        """Counts a process that is to start. Raises OSError if it cannot have its folder."""
        user, num_bytes = launch.user_index, launch.limits.file_bytes
        if not num_bytes:
            return
        if self.obstacle:
            raise OSError(errno.ENOTSUP, self.obstacle)
        if not self._num_processes[user]:
            mount_scratch(user, num_bytes, self._uid_of(user))
        self._num_processes[user] += 1

    def leave(self, launch: LaunchRequest) -> None:
        """Counts a process that is gone."""
        if not launch.limits.file_bytes:
            return
        self._num_processes[launch.user_index] -= 1
        if not self._num_processes[launch.user_index]:
            unmount_scratch(launch.user_index)

    @staticmethod
    def path(launch: LaunchRequest) -> str:
        return scratch_path(launch.user_index)
