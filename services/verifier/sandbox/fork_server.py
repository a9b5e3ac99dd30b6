"""The fork-server: a small process that forks a jailed child for each request and reports its end.

It never reads a job: each child reads its own from a descriptor, inside the jail.
"""

import gc
import os
import select
import socket
import sys
from contextlib import suppress
from dataclasses import replace
from os import closerange, dup2
from typing import NoReturn

from services.verifier.sandbox import kernel
from services.verifier.sandbox.jail.child.preloading import (
    preload,
    preload_libraries,
    preload_packages,
    refuse_writable_code,
)
from services.verifier.sandbox.jail.child.run_role import run_role, warm_up
from services.verifier.sandbox.jail.jail import Jail, enter_jail
from services.verifier.sandbox.messages import (
    EXIT_NO_JAIL,
    MAX_DESCRIPTORS,
    MAX_MESSAGE_BYTES,
    ForkFailed,
    JailOptions,
    LaunchRequest,
    ProcessEnded,
    ProcessStarted,
    Ready,
    pack_message,
)

# The lower numbers stay occupied, so that no descriptor received here has a number that a child uses (0..4).
_FIRST_RECEIVED = 10


class ForkServer:
    """Forks children and reaps them until the service closes the control socket."""

    def __init__(self, control: socket.socket, jail: Jail) -> None:
        self._control = control
        self._jail = jail
        self._poll = select.epoll()
        self._poll.register(control, select.EPOLLIN)
        self._children: dict[int, tuple[LaunchRequest, int]] = {}  # and the pid, by pidfd
        self._pid = os.getpid()

    def serve(self) -> None:
        self._control.send(pack_message(Ready(self._jail.layers)))
        while True:
            for descriptor, _ in self._poll.poll():
                if descriptor == self._control.fileno():
                    if not self._handle_request():
                        return
                else:
                    self._reap(descriptor)

    def _handle_request(self) -> bool:
        """False when the service has closed its end."""
        data, descriptors, _, _ = socket.recv_fds(self._control, MAX_MESSAGE_BYTES, MAX_DESCRIPTORS)
        if not data:
            return False
        try:
            self._launch(LaunchRequest.unpack(data), descriptors)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return True

    def _launch(self, launch: LaunchRequest, descriptors: list[int]) -> None:
        try:
            self._jail.scratch.enter(launch)
            pid = self._fork(launch)
        except OSError as error:
            self._control.send(pack_message(ForkFailed(launch.job_id, error.errno or 0)))
            return
        if pid == 0:
            self._become_child(launch, descriptors)
        pidfd = os.pidfd_open(pid)
        self._children[pidfd] = (launch, pid)
        self._poll.register(pidfd, select.EPOLLIN)
        socket.send_fds(self._control, [pack_message(ProcessStarted(launch.job_id))], [pidfd])

    def _fork(self, launch: LaunchRequest) -> int:
        try:
            return kernel.fork()
        except OSError:
            self._jail.scratch.leave(launch)
            raise

    def _become_child(self, launch: LaunchRequest, descriptors: list[int]) -> NoReturn:
        """Enters the jail and runs the job, in the child."""
        try:
            for number, descriptor in enumerate(descriptors):
                dup2(descriptor, number)
            self._jail.apply(launch, self._pid)
            closerange(len(descriptors), 1 << 20)
        except BaseException as error:  # noqa: BLE001 - a child that failed must not go on as a second server
            with suppress(BaseException):
                os.write(2, f"{type(error).__name__}: {error}".encode())
            os._exit(EXIT_NO_JAIL)
        run_role(launch.role)

    def _reap(self, pidfd: int) -> None:
        launch, pid = self._children.pop(pidfd)
        self._poll.unregister(pidfd)
        os.close(pidfd)
        _, status, usage = os.wait4(pid, 0)
        self._jail.scratch.leave(launch)
        cpu_seconds = usage.ru_utime + usage.ru_stime
        self._control.send(pack_message(ProcessEnded(launch.job_id, status, cpu_seconds, usage.ru_maxrss * 1024)))


def _occupy_low_descriptors(control: int) -> int:
    """Puts the null device on the low numbers and moves the control socket above them; returns its number."""
    null = os.open("/dev/null", os.O_RDWR)
    moved = control
    while moved < _FIRST_RECEIVED:
        moved = os.dup(moved)
    for number in range(_FIRST_RECEIVED):
        if number != 2:  # the service reads our standard error when it has to end us
            os.dup2(null, number)
    if null >= _FIRST_RECEIVED:
        os.close(null)
    return moved


def _offer_to_oom_killer() -> None:
    """If the machine runs out of memory, the kernel should kill a jailed process, not the service."""
    with suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
        file.write("800")


def main() -> None:
    """Serves the control socket whose descriptor is the first argument; the second is the JailOptions, as JSON."""
    control = _occupy_low_descriptors(int(sys.argv[1]))
    _offer_to_oom_killer()
    options = JailOptions.from_json(sys.argv[2])
    preload()
    preload_libraries()
    packages = preload_packages(options.packages, options.package_folders)
    refuse_writable_code()
    jail = enter_jail(replace(options, readable=(*options.readable, *packages)))
    os.chdir("/")
    os.environ.clear()
    os.environ.update({"LANG": "C.UTF-8", "HOME": "/", "PATH": ""})
    warm_up()
    gc.collect()
    gc.freeze()
    with suppress(BrokenPipeError, ConnectionResetError):
        ForkServer(socket.socket(fileno=control), jail).serve()
