"""A whole run on this machine, as a process that is interrupted, killed, resumed. Slow: every service is real."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

from services.launcher.runs.history import History
from services.launcher.runs.run_dir import RunDirectory, RunRecord
from shared.runtime.child_process import is_alive
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

Launcher: TypeAlias = "subprocess.Popen[bytes]"
Start = Callable[..., Launcher]
SMALL = ("held_out_problems=8", "evaluation.problems=8", "batch_size=4", "total_steps=6", "checkpoint_every=1")


@pytest.fixture
def ibtpo() -> Iterator[Start]:
    """Starts the command; what is still running after the test is killed, and its services end with it."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    environment.pop("REDIS_URL", None)
    started: list[Launcher] = []

    def start(command: str, run: RunDirectory, *arguments: str) -> Launcher:
        words = [sys.executable, "-m", "services.launcher.cli", command, "--runs", str(run.root.parent), *arguments]
        with (run.root.parent / "output.txt").open("ab") as output:
            started.append(subprocess.Popen(words, env=environment, stdout=output, stderr=output))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def train(ibtpo: Start) -> Start:
    """Trains the run with these settings."""
    return lambda run, *settings: ibtpo("train", run, "--plain", "--run", run.name, *settings)


def steps(run: RunDirectory) -> list[int]:
    return [one.step for one in History.read(run.metrics).figures]


def services_of(run: RunDirectory) -> dict[str, int]:
    record = run.read_record()
    assert isinstance(record, RunRecord)
    return record.pids


def assert_all_gone(pids: dict[str, int], seconds: float = 60.0) -> None:
    wait_until(lambda: not any(map(is_alive, pids.values())), seconds)


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path / "mine")


def test_an_interrupted_run_is_resumed_and_finished(run: RunDirectory, train: Start) -> None:
    launcher = train(run, *SMALL)
    wait_until(lambda: len(steps(run)) >= 2, 180)
    pids = services_of(run)
    assert set(pids) == {"redis", "verifier", "learner", "rollout-1", "rollout-2"}
    launcher.send_signal(signal.SIGINT)
    assert launcher.wait(60) == 130
    assert_all_gone(pids, 1.0)
    assert not run.is_finished
    assert run.report.exists()

    assert train(run, *SMALL).wait(240) == 0
    assert steps(run) == [1, 2, 3, 4, 5, 6]
    summary = json.loads(run.summary.read_text())
    assert (summary["steps"], summary["sampler"]) == (6, "ib")
    assert "<svg" in run.report.read_text()
    assert (run.plots / "held-out_accuracy.png").stat().st_size > 1000
    assert (run.policy / "model.safetensors").exists()
    assert not run.is_running()
    before = run.summary.stat().st_mtime
    assert train(run, "--resume").wait(60) == 0, "it is finished"
    assert run.summary.stat().st_mtime == before


def test_what_is_killed_comes_back_and_stop_ends_the_run(run: RunDirectory, train: Start, ibtpo: Start) -> None:
    launcher = train(run, *SMALL[:3], "total_steps=500")
    wait_until(lambda: steps(run), 180)
    before = services_of(run)
    for name in ("verifier", "rollout-1", "learner", "redis"):
        os.kill(before[name], signal.SIGKILL)
    wait_until(
        lambda: all(services_of(run)[name] != before[name] for name in ("verifier", "rollout-1", "learner", "redis")),
        180,
    )
    seen = len(steps(run))
    wait_until(lambda: len(steps(run)) > seen + 1, 180)
    assert ibtpo("stop", run, run.name).wait(120) == 0
    assert launcher.wait(60) == 0
    assert_all_gone(services_of(run), 1.0)


def test_nothing_outlives_a_launcher_that_is_killed(run: RunDirectory, train: Start) -> None:
    launcher = train(run, *SMALL[:3], "total_steps=500")
    wait_until(lambda: steps(run), 180)
    pids = services_of(run)
    launcher.kill()
    launcher.wait()
    assert_all_gone(pids)
    assert not run.is_running()


def test_a_second_interrupt_does_not_wait_for_a_learner_that_hangs(run: RunDirectory, train: Start) -> None:
    launcher = train(run, *SMALL[:3], "total_steps=500", "stop_seconds=300")
    wait_until(lambda: steps(run), 180.0)
    pids = services_of(run)
    os.kill(pids["learner"], signal.SIGSTOP)
    launcher.send_signal(signal.SIGINT)
    wait_until(lambda: "stopping: the learner saves" in (run.root.parent / "output.txt").read_text())
    launcher.send_signal(signal.SIGINT)
    assert launcher.wait(30) == 130
    assert_all_gone(pids, 1.0)
