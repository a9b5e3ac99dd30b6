"""`ibtpo demo` as a process, for tests that look at it from outside."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from shared.protocol.status import RunStatus
from shared.runtime.child_process import kill_group
from tests.accounts import is_balanced
from tests.waiting import wait_until


class Demo:
    """`ibtpo demo` as a user starts it, small."""

    def __init__(self, directory: Path, name: str = "drill") -> None:
        self.run = directory / "runs" / name
        self._log = directory / f"{name}.log"
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self._http = httpx.Client(timeout=2)

    def start(self, *settings: str) -> None:
        command = [sys.executable, "-m", "services.launcher.cli", "demo", "--run", self.run.name, "--plain", *settings]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                command, cwd=self._directory, stdout=output, stderr=output, env=environment, start_new_session=True
            )

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def pid(self, service: str) -> int:
        return int(json.loads((self.run / "run.json").read_text())["pids"][service])

    def kill(self, service: str) -> None:
        os.kill(self.pid(service), signal.SIGKILL)

    def status(self) -> RunStatus | None:
        try:
            url = json.loads((self.run / "run.json").read_text())["learner_url"]
            return RunStatus.model_validate_json(self._http.get(f"{url}/v1/status").content)
        except (OSError, KeyError, ValueError, httpx.HTTPError):
            return None

    def wait_until(self, is_so: Callable[[RunStatus], bool], seconds: float = 150) -> RunStatus:
        def status_if_so() -> RunStatus | None:
            assert self._process is not None
            assert self._process.poll() is None, self.log
            status = self.status()
            if status is None:
                return None
            assert is_balanced(status.accounts), status.accounts
            return status if is_so(status) else None

        status = wait_until(status_if_so, seconds, lambda: f"the end of the log:\n{self.log[-3000:]}")
        assert status is not None
        return status

    def examine(self) -> dict[str, tuple[str, str]]:
        """What `ibtpo doctor` finds: level and text by "subject: check"."""
        command = [sys.executable, "-m", "services.launcher.cli", "doctor", self.run.name, "--json", "--timeout", "30"]
        done = subprocess.run(command, cwd=self._directory, capture_output=True, text=True, timeout=120, check=False)
        return {
            f"{section['subject']}: {one['check']}": (one["level"], f"{one['found']} {one['remedy']}")
            for section in json.loads(done.stdout)["sections"]
            for one in section["findings"]
        }

    def interrupt(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGINT)

    def wait(self, seconds: float = 200) -> int:
        assert self._process is not None
        return self._process.wait(seconds)

    def end(self) -> None:
        self._http.close()
        if self._process is not None and self._process.poll() is None:
            kill_group(self._process.pid)
            self._process.wait()


def read_metrics(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
