"""The user that a jailed process runs as: one of its own where possible, without capabilities."""

import ctypes
import os
import signal
import struct
from dataclasses import dataclass
from os import getppid, setresgid, setresuid

from services.verifier.sandbox import kernel
from services.verifier.sandbox.kernel import PR_SET_PDEATHSIG, prctl

# One user for each process that runs at the same time; containers' user namespaces map these numbers.
FIRST_UID = 64_000
_SIGKILL = int(signal.SIGKILL)
_CAPABILITY_VERSION_3 = 0x20080522


@dataclass(frozen=True, slots=True)
class JailUser:
    """Whether each jailed process gets a user of its own, and if not, what prevents it."""

    has_own_uid: bool
    obstacle: str = ""

    def prepare_parent(self) -> None:
        """Called once by the fork-server; its children inherit the effect."""
        if self.has_own_uid:
            os.setgroups([])
        kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
        kernel.prctl(kernel.PR_SET_DUMPABLE, 0)

    def uid_of(self, user_index: int) -> int:
        return FIRST_UID + user_index if self.has_own_uid else os.geteuid()

    def become(self, user_index: int, parent: int) -> None:
        """Becomes the user of this index, for good, without capabilities; dies when `parent` (the fork-server) does."""
        if self.has_own_uid:
            uid = FIRST_UID + user_index
            setresgid(uid, uid, uid)
            setresuid(uid, uid, uid)
        else:
            _drop_capabilities()
        # The change of user would clear this, so it comes after; the parent may have died before.
        prctl(PR_SET_PDEATHSIG, _SIGKILL)
        if getppid() != parent:
            os._exit(1)


# As capset(2) wants them: the version and the thread itself; three empty sets, twice.
_HEADER = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITY_VERSION_3, 0))
_NO_CAPABILITIES = ctypes.create_string_buffer(24)


def _drop_capabilities() -> None:
    kernel.checked(kernel.LIBC.capset(_HEADER, _NO_CAPABILITIES), "capset")


def probe_jail_user(max_processes: int, must_read: str) -> JailUser:
    """Tries, in another process, to become the last user and to read `must_read`."""
    if os.geteuid() != 0:
        return JailUser(False, "not root: jailed code keeps the service's user")
    child = os.fork()
    if child == 0:
        os._exit(_try_to_become(max_processes - 1, must_read))
    answer = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    obstacles = {
        0: "",
        1: f"users {FIRST_UID}..{FIRST_UID + max_processes - 1} cannot be assumed (no CAP_SETUID, or not mapped)",
    }
    return JailUser(answer == 0, obstacles.get(answer, f"other users cannot read {must_read}: open its directories"))


def _try_to_become(user_index: int, must_read: str) -> int:
    try:
        os.setgroups([])
        JailUser(True).become(user_index, os.getppid())
    except OSError:
        return 1
    try:
        with open(must_read, "rb"):
            return 0
    except OSError:
        return 2
