"""What the launcher's tests share: the command in this process, and small scripts that stand for services."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import pytest

from services.launcher.cli import main
from services.launcher.processes.service_processes import ServiceSpec, StopOrder, is_ready

HTTP_SERVICE = """
import http.server, os, signal, subprocess, sys, time
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b"{}")
    def log_message(self, *arguments): pass
if "--child" in sys.argv:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    open(sys.argv[1] + ".child", "w").write(str(child.pid))
if "--stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
else:
    def end(*_):
        with open(sys.argv[1] + ".ended", "w") as file: file.write(str(time.time()))
        os._exit(0)
    signal.signal(signal.SIGTERM, end)
server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[2])), Answer)
open(sys.argv[1], "w").write(f"http://127.0.0.1:{server.server_port}")
print('{"event": "listening", "level": "info"}', flush=True)
server.serve_forever()
"""


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended."""

    code: int | str | None
    stdout: str
    stderr: str


Command: TypeAlias = Callable[..., Done]


@pytest.fixture
def ibtpo(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs the command in this process, which is much quicker, on a wide terminal without Redis."""
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.delenv("REDIS_URL", raising=False)
    monkeypatch.delenv("IBTPO_TOKEN", raising=False)

    def run(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["ibtpo", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return Done(ended.value.code, *capsys.readouterr())

    return run


@pytest.fixture
def http_service() -> str:
    """The program of a service: its arguments are the URL file, the port and flags."""
    return HTTP_SERVICE


@pytest.fixture
def make_spec(tmp_path: Path) -> Callable[..., ServiceSpec]:
    """Builds the spec of a service that answers HTTP, or, with `script`, of any other Python program."""

    def make(name: str, *flags: str, script: str | None = None, **changes: object) -> ServiceSpec:
        url_file = tmp_path / f"{name}.url"
        program = (script, *flags) if script else (HTTP_SERVICE, str(url_file), "{port}", *flags)
        fields = {
            "name": name,
            "command": (sys.executable, "-c", *program),
            "stop_order": StopOrder.ROLLOUT,
            "log": tmp_path / f"{name}.jsonl",
            "url_file": url_file,
            "probe": is_ready,
            "grace_seconds": 5.0,
        }
        return ServiceSpec(**{**fields, **changes})  # type: ignore[arg-type]

    return make
