"""Runs a process for each of the run's trackers, which sends what metrics.jsonl holds; training never waits for one."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from services.learner.config import LearnerConfig
from services.learner.record.tracking import TrackingRecord, make_order, record_path
from shared.runtime.logs import event_logger

log = event_logger(__name__)
SENDER = "services.launcher.tracking"
"""The module that sends; it draws trees as the report does, and stands above this service."""
_POLL_SECONDS = 0.5
_FIRST_PAUSE_SECONDS, _MAX_PAUSE_SECONDS = 2.0, 300.0
_NOT_FOR_TRACKERS = ("IBTPO_TOKEN", "REDIS_URL")
_KILL_SECONDS = 0.5
"""A sender ends by itself in time; this much later it is killed."""


class Trackers:
    """The run's senders. One that fails or hangs is started again, with longer and longer pauses, and goes on where its
    tracker's record ends."""

    def __init__(self, config: LearnerConfig) -> None:
        self._config = config
        self._senders: dict[str, subprocess.Popen[bytes]] = {}
        self._running: list[asyncio.Task[None]] = []
        self._complaints: dict[str, str] = {}

    @property
    def complaint(self) -> str:
        """Which trackers get nothing now, and why; empty if all do."""
        return "; ".join(f"tracker {name} gets nothing: {why}" for name, why in self._complaints.items() if why)

    def start(self, step: int) -> None:
        """Begins to send; steps after `step` are the run's next."""
        self._running = [
            asyncio.create_task(self._keep_sending(name, step), name=f"tracker {name}") for name in self._config.tracker
        ]

    async def close(self) -> None:
        """Has all senders finish, for at most `tracker_seconds` in all; one that waits to try again does so now."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        deadline = asyncio.get_running_loop().time() + self._config.tracker_seconds + _KILL_SECONDS
        for name, sender in self._senders.items():
            if sender.poll() is not None:
                self._senders[name] = self._spawn(name, None)
            _close_input(self._senders[name])
        for name, sender in self._senders.items():
            left = max(0.0, deadline - asyncio.get_running_loop().time())
            await asyncio.to_thread(_wait, sender, left)
            _kill(sender)
            if sender.returncode:
                self._complain(name)
            else:
                self._complaints[name] = ""
        self._senders.clear()

    async def _keep_sending(self, name: str, step: int) -> None:
        pause = _FIRST_PAUSE_SECONDS
        at: int | None = step
        while True:
            try:
                self._senders[name] = sender = self._spawn(name, at)
            except OSError as error:
                self._complaints[name] = f"its process cannot be started: {error}"
                log.warning("tracker_failed", tracker=name, reason=self._complaints[name])
                return
            at = None  # what it gets from now on is this process's
            began = asyncio.get_running_loop().time()
            while sender.poll() is None:
                await asyncio.sleep(_POLL_SECONDS)
                if self._complaints.get(name) and not self._read_record(name).problem:
                    self._complaints[name] = ""
                    log.info("tracker_recovered", tracker=name)
            _kill(sender)
            self._complain(name)
            if asyncio.get_running_loop().time() - began > _MAX_PAUSE_SECONDS:
                pause = _FIRST_PAUSE_SECONDS
            await asyncio.sleep(pause)
            pause = min(_MAX_PAUSE_SECONDS, 2 * pause)

    def _spawn(self, name: str, step: int | None) -> "subprocess.Popen[bytes]":
        order = make_order(self._config, name, step)
        path = self._log_path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        environment = {key: value for key, value in os.environ.items() if key not in _NOT_FOR_TRACKERS}
        with path.open("ab") as output:
            sender = subprocess.Popen(  # noqa: S603 - our own module
                (sys.executable, "-P", "-m", SENDER),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=environment,
                start_new_session=True,
            )
        if sender.stdin is not None:
            with contextlib.suppress(OSError):  # it has ended already
                os.write(sender.stdin.fileno(), order.model_dump_json().encode() + b"\n")
        return sender

    def _complain(self, name: str) -> None:
        """Logs why a sender ended, once as long as the reason is the same."""
        code = self._senders[name].returncode
        why = self._read_record(name).problem or f"its process ended with code {code}; {self._log_path(name)} says more"
        if why != self._complaints.get(name):
            log.warning("tracker_failed", tracker=name, reason=why)
        self._complaints[name] = why

    def _read_record(self, name: str) -> TrackingRecord:
        return TrackingRecord.read(record_path(self._config.run_dir, name))

    def _log_path(self, name: str) -> Path:
        return self._config.run_dir / "logs" / f"tracker-{record_path(self._config.run_dir, name).stem}.log"


def _wait(sender: "subprocess.Popen[bytes]", seconds: float) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        sender.wait(seconds)


def _close_input(sender: "subprocess.Popen[bytes]") -> None:
    """Tells it that the run has ended here."""
    if sender.stdin is not None:
        with contextlib.suppress(OSError):
            sender.stdin.close()


def _kill(sender: "subprocess.Popen[bytes]") -> None:
    """Ends it and what it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(sender.pid, signal.SIGKILL)
    sender.wait()
    _close_input(sender)
