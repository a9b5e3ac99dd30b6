"""The folder in which a command runs: its packages, its name and the terminal's locale disturb nothing."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from services.launcher.processes.guard import GuardProcess
from services.launcher.processes.redis_server import choose_redis, is_responding
from services.launcher.processes.service_processes import Service, ServiceSpec
from tests.waiting import wait_until

pytestmark = pytest.mark.drill

ROOT = Path(__file__).parents[2]
# What the entry script of an installed package does.
ENTRY = "import sys; from services.launcher.cli import main; sys.argv = ['ibtpo', *sys.argv[1:]]; main()"


def ibtpo(folder: Path, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[bytes]":
    """Runs the command in that folder, as its entry script does: without the folder on the path."""
    command = [sys.executable, "-P", "-c", ENTRY, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "REDIS_URL": "", **environment}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, timeout=120, check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project of the user's with packages that are called as ours, and a kind of its own."""
    for package in ("services", "shared"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("raise RuntimeError('not ours')")
    (tmp_path / "mine.py").write_text("def judge(response, key):\n    return float(response == key['gold'])\n")
    (tmp_path / "mine.toml").write_text("[verifier.kinds.own]\nfunction = 'mine:judge'\n")
    return tmp_path


def test_packages_called_as_ours_do_not_take_our_place(folder: Path) -> None:
    done = ibtpo(folder, "verify", r"\boxed{4}", "--answer", "4")
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("encoding", ["ascii", "iso-8859-1", "gbk"])
def test_a_terminal_without_utf_8_is_no_error(tmp_path: Path, encoding: str) -> None:
    done = ibtpo(tmp_path, "verify", r"中 η \boxed{5}", "--answer", "5", PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    assert (done.returncode, done.stderr) == (0, b"")
    done = ibtpo(tmp_path, "config", "sampler", PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    assert (done.returncode, done.stderr) == (0, b"")


async def test_a_child_reads_utf_8_and_has_the_working_directory_nowhere_before_our_packages(
    make_spec: Callable[..., ServiceSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LC_ALL", "C")
    program = "import json, sys, locale; print(json.dumps([sys.path[0], locale.getpreferredencoding(False)]))"
    spec = make_spec("probe", script=program, url_file=None, may_finish=True)
    guard = await GuardProcess.start(tmp_path / "guard.jsonl")
    service = Service(spec, guard, print)
    await service.start()
    await service.wait_ready(30)
    await guard.close()
    first, encoding = json.loads(spec.log.read_text())
    assert (first != "", encoding.lower()) == (True, "utf-8")


@pytest.mark.parametrize("name", ['it\'s "mine"', "back\\slash", "ümlaut 中"])
def test_redis_works_in_a_folder_of_any_name(tmp_path: Path, name: str) -> None:
    redis = choose_redis(None, tmp_path / name)
    with subprocess.Popen(redis.command, stdout=subprocess.PIPE) as process:
        try:
            wait_until(lambda: asyncio.run(is_responding(redis.url)))
        finally:
            process.terminate()
    assert (tmp_path / name / "appendonlydir").is_dir()
