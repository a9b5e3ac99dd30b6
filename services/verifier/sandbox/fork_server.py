"""The fork-server: a small process that turns launch messages into jailed children and tells how they ended.

It never reads a job: a child reads its own from a passed descriptor, inside the jail.
"""

import array
import gc
import json
import os
import select
import socket
import sys
from contextlib import suppress

from services.verifier.sandbox import kernel
from services.verifier.sandbox.jail.child.run_role import preload, run_role
from services.verifier.sandbox.jail.jail import EXIT_NO_JAIL, Jail, JailOptions, enter_jail
from services.verifier.sandbox.messages import (
    MAX_DESCRIPTORS,
    MAX_MESSAGE_BYTES,
    ForkFailed,
    LaunchRequest,
    ProcessEnded,
    ProcessStarted,
    Ready,
)

# Descriptors below this are taken, so that none of those passed in is among a child's own 0..4.
_FIRST_PASSED = 10
_ANCILLARY_BYTES = socket.CMSG_LEN(MAX_DESCRIPTORS * array.array("i").itemsize)


class ForkServer:
    """Launches children and reaps them, until the service closes the control socket."""

    def __init__(self, control: socket.socket, jail: Jail) -> None:
        self._control = control
        self._jail = jail
        self._poll = select.epoll()
        self._poll.register(control, select.EPOLLIN)
        self._children: dict[int, tuple[int, int]] = {}  # job and process by pidfd
        self._own_pid = os.getpid()

    def serve(self) -> None:
        self._control.send(Ready(self._jail.layers).pack())
        while True:
            for descriptor, _ in self._poll.poll():
                if descriptor == self._control.fileno():
                    if not self._take_launch():
                        return
                else:
                    self._reap(descriptor)

    def _take_launch(self) -> bool:
        data, ancillary, _, _ = self._control.recvmsg(MAX_MESSAGE_BYTES, _ANCILLARY_BYTES)
        if not data:
            return False
        descriptors = array.array("i")
        for _, _, passed in ancillary:
            descriptors.frombytes(passed)
        try:
            self._launch(LaunchRequest.unpack(data), list(descriptors))
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return True

    def _launch(self, launch: LaunchRequest, descriptors: list[int]) -> None:
        try:
            pid = kernel.fork()
        except OSError as error:
            self._control.send(ForkFailed(launch.job_id, error.errno or 0).pack())
            return
        if pid == 0:
            self._become(launch, descriptors)
        pidfd = os.pidfd_open(pid)
        self._children[pidfd] = (launch.job_id, pid)
        self._poll.register(pidfd, select.EPOLLIN)
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [pidfd]))]
        self._control.sendmsg([ProcessStarted(launch.job_id).pack()], rights)

    def _become(self, launch: LaunchRequest, descriptors: list[int]) -> None:
        """The child's way; never returns."""
        try:
            for number, descriptor in enumerate(descriptors):
                os.dup2(descriptor, number)
            self._jail.apply(launch, self._own_pid)
            os.closerange(len(descriptors), 1 << 20)
        except BaseException as error:  # noqa: BLE001 - a child that may not run must not go on as a server
            with suppress(BaseException):
                os.write(2, f"{type(error).__name__}: {error}".encode())
            os._exit(EXIT_NO_JAIL)
        run_role(launch.role)

    def _reap(self, pidfd: int) -> None:
        job_id, pid = self._children.pop(pidfd)
        self._poll.unregister(pidfd)
        os.close(pidfd)
        _, status, usage = os.wait4(pid, 0)
        cpu_seconds = usage.ru_utime + usage.ru_stime
        self._control.send(ProcessEnded(job_id, status, cpu_seconds, usage.ru_maxrss * 1024).pack())


def _occupy_low_descriptors(control: int) -> int:
    """Puts the null device on the low numbers and the control socket above; returns its number."""
    null = os.open("/dev/null", os.O_RDWR)
    moved = control
    while moved < _FIRST_PASSED:
        moved = os.dup(moved)
    for number in range(_FIRST_PASSED):
        if number != 2:  # what goes wrong here is read by the service when it has to end us
            os.dup2(null, number)
    if null >= _FIRST_PASSED:
        os.close(null)
    return moved


def _prefer_as_victim() -> None:
    """Out of memory, the kernel should take a jailed process, not the service."""
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("800")


def main() -> None:
    """`fork_server.main()` with the options as JSON in the first argument."""
    options = json.loads(sys.argv[1])
    control = _occupy_low_descriptors(options["control"])
    _prefer_as_victim()
    preload()
    jail = enter_jail(JailOptions(**options["jail"]))
    os.chdir("/")
    os.environ.clear()
    os.environ.update({"LANG": "C.UTF-8", "HOME": "/", "PATH": ""})
    gc.collect()
    gc.freeze()
    with suppress(BrokenPipeError, ConnectionResetError):
        ForkServer(socket.socket(fileno=control), jail).serve()
