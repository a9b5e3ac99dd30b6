"""`ibtpo status` and `ibtpo stop`, for runs of this machine and for runs that only a Redis knows."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.launcher.runs.run_dir import RunDirectory, RunRecord
from shared.protocol.figures import StepFigures
from shared.protocol.status import RunState, RunStatus
from shared.streams import RunStreams, connect
from shared.streams.keys import RunKeys
from tests.launcher.conftest import Command
from tests.waiting import wait_until

LAUNCHER = """
import fcntl, sys, time
lock = open(sys.argv[1], "a")
fcntl.flock(lock, fcntl.LOCK_EX)
print("locked", flush=True)
time.sleep(600)
"""


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """A run that has begun."""
    run = RunDirectory(tmp_path / "runs" / "mine")
    run.make()
    run.config.write_text("[learner]\n")
    return run


@pytest.fixture
def launcher(run: RunDirectory) -> Iterator["subprocess.Popen[str]"]:
    """A process that holds the run's lock until it is told to end."""
    command = [sys.executable, "-c", LAUNCHER, str(run.root / ".lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield process
        process.kill()


def record(run: RunDirectory, pid: int, redis_url: str, learner_url: str | None = None) -> None:
    run.write_record(
        RunRecord(
            run=run.name,
            pid=pid,
            started=time.time(),
            redis_url=redis_url,
            redis_description="a test's",
            learner_url=learner_url,
        )
    )


def publish(redis_url: str, run: str, state: RunState = RunState.TRAINING) -> None:
    async def write() -> None:
        connection = connect(redis_url)
        await RunStreams(connection, run).status_keys.publish(RunStatus(run=run, state=state, step=7, time=time.time()))
        await connection.close()

    asyncio.run(write())


def stop_requested(redis_url: str, run: str) -> bool:
    async def read() -> bool:
        connection = connect(redis_url)
        try:
            return await RunStreams(connection, run).status_keys.is_stop_requested()
        finally:
            await connection.close()

    return asyncio.run(read())


def test_an_interrupted_run_says_how_far_it_came_and_how_to_go_on(run: RunDirectory, ibtpo: Command) -> None:
    run.metrics.write_text(StepFigures(step=7, trees=24, eff_rate=0.625).model_dump_json() + "\n")
    done = ibtpo("status", "mine", "--runs", str(run.root.parent))
    for part in ("mine · not finished: 7 steps", "0.625", "ibtpo train --run mine --resume --runs"):
        assert part in done.stdout, part


def test_a_run_that_was_interrupted_is_neither_running_nor_finished(run: RunDirectory, ibtpo: Command) -> None:
    done = ibtpo("status", "mine", "--runs", str(run.root.parent))
    assert (done.code, "mine · not finished: 0 steps" in done.stdout) == (0, True)


def test_a_finished_run_shows_its_results(run: RunDirectory, ibtpo: Command) -> None:
    run.summary.write_text('{"eff_rate": 0.625}')
    done = ibtpo("status", "--runs", str(run.root.parent))
    assert "mine · finished" in done.stdout
    assert "0.625" in done.stdout


def test_a_run_is_found_by_its_directory_wherever_its_redis_is(
    run: RunDirectory, redis_url: str, ibtpo: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.root.parents[1])
    for name in ("runs/mine", "mine"):
        done = ibtpo("status", name, "--redis-url", redis_url)
        assert (done.code, "mine · not finished: 0 steps" in done.stdout) == (0, True)


def test_a_run_without_a_status_yet_is_starting(run: RunDirectory, ibtpo: Command) -> None:
    with run.lock():
        assert "is starting" in ibtpo("status", "mine", "--runs", str(run.root.parent)).stdout


def test_where_the_learner_does_not_answer_redis_tells_the_status(
    run: RunDirectory, redis_url: str, ibtpo: Command
) -> None:
    publish(redis_url, "mine")
    record(run, os.getpid(), redis_url, learner_url="http://127.0.0.1:9")
    with run.lock():
        text = ibtpo("status", "mine", "--runs", str(run.root.parent)).stdout
    assert "mine · training" in text
    assert "step 7" in text


def test_only_the_owner_reads_the_record_of_a_run(run: RunDirectory) -> None:
    record(run, 1, "redis://:s3cret@127.0.0.1:1/0")
    assert run.record.stat().st_mode & 0o077 == 0


def test_a_record_that_cannot_be_read_counts_as_none(run: RunDirectory) -> None:
    run.record.write_text("{")
    assert run.read_record() is None


def test_a_run_that_is_not_running_needs_no_stop(run: RunDirectory, ibtpo: Command) -> None:
    done = ibtpo("stop", "mine", "--runs", str(run.root.parent))
    assert (done.code, done.stdout) == (0, "run mine is not running\n")


def test_stop_asks_the_run_and_waits_for_its_end(
    run: RunDirectory, redis_url: str, launcher: "subprocess.Popen[str]", ibtpo: Command
) -> None:
    record(run, launcher.pid, redis_url)

    def end_when_asked() -> None:
        wait_until(lambda: stop_requested(redis_url, "mine"))
        launcher.kill()

    learner = threading.Thread(target=end_when_asked)
    learner.start()
    done = ibtpo("stop", "mine", "--runs", str(run.root.parent))
    learner.join()
    assert "the learner finishes its step and saves" in done.stdout
    assert "run mine stopped, 0:0" in done.stdout
    assert f"ibtpo train --run mine --resume --runs {run.root.parent}" in "".join(done.stdout.split("\n"))
    assert not run.is_running()


def test_where_nobody_takes_the_request_stop_ends_the_launcher(
    run: RunDirectory, launcher: "subprocess.Popen[str]", ibtpo: Command
) -> None:
    record(run, launcher.pid, "redis://127.0.0.1:9/0", learner_url="http://127.0.0.1:9")
    done = ibtpo("stop", "mine", "--runs", str(run.root.parent))
    assert (done.code, "its launcher stops the services" in done.stdout) == (0, True)
    assert launcher.wait(10) != 0


def test_a_run_elsewhere_is_found_in_its_redis_and_asked_to_stop(
    redis_url: str, tmp_path: Path, ibtpo: Command
) -> None:
    publish(redis_url, "first")
    publish(redis_url, "latest")
    where = ("--redis-url", redis_url, "--runs", str(tmp_path))
    assert "latest · training" in ibtpo("status", *where).stdout
    assert "first · training" in ibtpo("status", "first", *where).stdout
    for command in ("status", "stop"):
        done = ibtpo(command, "third", *where)
        assert (done.code, "knows no run 'third'; it knows latest, first" in done.stderr) == (2, True)
    assert not stop_requested(redis_url, "third")
    assert "run first: asked to stop" in ibtpo("stop", "first", *where).stdout
    assert stop_requested(redis_url, "first")
    assert not stop_requested(redis_url, "latest")


def test_a_status_of_another_release_is_not_taken_for_an_unknown_run(
    redis_url: str, tmp_path: Path, ibtpo: Command
) -> None:
    async def write() -> None:
        connection = connect(redis_url)
        await connection.command("SET", RunKeys("mine").status, '{"of": "another release"}')
        await connection.close()

    publish(redis_url, "mine")
    asyncio.run(write())
    done = ibtpo("status", "mine", "--redis-url", redis_url, "--runs", str(tmp_path))
    assert (done.code, "is the run of another release of ibtpo?" in done.stderr) == (1, True)


def test_a_redis_without_runs_says_so(redis_url: str, tmp_path: Path, ibtpo: Command) -> None:
    done = ibtpo("status", "--redis-url", redis_url, "--runs", str(tmp_path))
    assert (done.code, "this Redis knows no run" in done.stderr) == (2, True)
