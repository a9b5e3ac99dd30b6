"""Landlock: which files jailed code may open."""

import ctypes
import os
import struct
from collections.abc import Iterable

from services.verifier.sandbox import kernel
from services.verifier.sandbox.kernel import checked

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every machine type
_CALL = kernel.LIBC["syscall"]
_CALL.argtypes = (ctypes.c_long,) * 3
_GET_VERSION = 1
_RULE_PATH_BENEATH = 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIRECTORY = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REMOVE_DIRECTORY, _REMOVE_FILE, _MAKE_DIRECTORY, _MAKE_FILE = 1 << 4, 1 << 5, 1 << 7, 1 << 8
_MOVE, _TRUNCATE = 1 << 13, 1 << 14
# Of a folder for files: regular files and folders alone, no links, pipes, sockets or devices.
_KEEP_FILES = (_WRITE_FILE | _READ_FILE | _READ_DIRECTORY | _MOVE | _TRUNCATE) | (
    _REMOVE_DIRECTORY | _REMOVE_FILE | _MAKE_DIRECTORY | _MAKE_FILE
)
# How many file rights each version of the interface has; they are its lowest bits.
_NUM_FILE_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
_BOTH_NETWORK_RIGHTS = 0b11
_BOTH_SCOPES = 0b11  # abstract sockets and signals stay inside the domain


def landlock_version() -> int:
    """The version of the kernel's Landlock interface; 0 if it has none."""
    try:
        return kernel.system_call(_CREATE_RULESET, None, 0, _GET_VERSION)
    except OSError:
        return 0


class LandlockRuleset:
    """Allows to read under some paths, to write and to execute some files, and to keep files in a folder.

    Denies all else that Landlock covers.
    """

    def __init__(
        self,
        readable: Iterable[str],
        writable: Iterable[str] = (),
        executable: Iterable[str] = (),
        folders: Iterable[str] = (),
    ) -> None:
        version = landlock_version()
        rights = (1 << _NUM_FILE_RIGHTS.get(version, 16)) - 1
        attributes = struct.pack("=QQQ", rights, _BOTH_NETWORK_RIGHTS, _BOTH_SCOPES)
        size = 24 if version >= 6 else 16 if version >= 4 else 8
        self._ruleset = kernel.system_call(_CREATE_RULESET, attributes, size, 0)
        for path in readable:
            self._allow(path, _READ_FILE | _READ_DIRECTORY)
        for path in writable:
            self._allow(path, _READ_FILE | _WRITE_FILE)
        for path in executable:
            self._allow(path, _READ_FILE | _EXECUTE)
        for path in folders:
            self._allow(path, _KEEP_FILES & rights)

    def _allow(self, path: str, rights: int) -> None:
        try:
            directory = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        if not os.path.isdir(path):
            rights &= ~_READ_DIRECTORY
        rule = struct.pack("=Qi", rights, directory)
        try:
            kernel.system_call(_ADD_RULE, self._ruleset, _RULE_PATH_BENEATH, rule, 0)
        finally:
            os.close(directory)

    def apply(self) -> None:
        """Restricts this process, and all it starts, for good. Needs no_new_privs."""
        checked(_CALL(_RESTRICT_SELF, self._ruleset, 0), "landlock_restrict_self")
