"""The learner's trackers: whatever they do, training goes on and ends in time, and what went wrong is shown."""

import asyncio
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from services.learner.config import LearnerConfig
from services.learner.record.metrics_log import MetricsLog
from services.learner.record.tracking import TrackingRecord, record_path
from services.learner.serving import trackers as module
from services.learner.serving.trackers import Trackers
from services.learner.tracker_config import check_trackers
from shared.errors import InvalidInput
from shared.protocol.figures import StepFigures
from tests.waiting import wait_until_async

OWN = "tests.launcher.tracking.own_trackers"
Configure = Callable[..., LearnerConfig]


@pytest.fixture
def configure(tmp_path: Path) -> Configure:
    """A run whose model and data nobody reads."""

    def make(**changes: object) -> LearnerConfig:
        sampler = {"kind": "independent", "initial_draws": 8}
        values = {"model": "m", "data": "d", "growth": {"sampler": sampler, "max_tokens": 16}, "total_steps": 4}
        return LearnerConfig.model_validate(values | {"run": "run", "run_dir": tmp_path / "run"} | changes)

    return make


def steps_of(file: Path) -> list[int]:
    calls = map(json.loads, file.read_text().splitlines()) if file.exists() else ()
    return [call["step"] for call in calls if call["call"] == "log"]


async def test_a_tracker_that_was_down_catches_up(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_FIRST_PAUSE_SECONDS", 0.1)
    monkeypatch.setattr(module, "_POLL_SECONDS", 0.05)
    monkeypatch.setenv("WANDB_API_KEY", "sekret-key-1")
    file, down = tmp_path / "calls", tmp_path / "down"
    down.touch()
    name = f"{OWN}:FailingTracker"
    config = configure(tracker=name, tracker_options={"file": str(file), "down": str(down)})
    trackers, metrics = Trackers(config), MetricsLog(config.run_dir)
    metrics.drop_after(0, ())
    with caplog.at_level(logging.INFO):
        trackers.start(0)
        metrics.append(StepFigures(step=1, trees=4))
        await wait_until_async(lambda: trackers.complaint)
        assert trackers.complaint == f"tracker {name} gets nothing: ConnectionError: no route to tracker with key ***"
        down.unlink()
        metrics.append(StepFigures(step=2, trees=4))
        await wait_until_async(lambda: steps_of(file) == [1, 2] and not trackers.complaint)
    await trackers.close()
    assert [record.message for record in caplog.records] == ["tracker_failed", "tracker_recovered"]
    assert "sekret" not in caplog.text


async def test_a_tracker_that_waits_to_try_again_does_so_at_the_end(configure: Configure, tmp_path: Path) -> None:
    file, down = tmp_path / "calls", tmp_path / "down"
    down.touch()
    config = configure(
        tracker=f"{OWN}:FailingTracker",
        tracker_options={"file": str(file), "down": str(down)},
        tracker_seconds=60.0,
    )
    trackers, metrics = Trackers(config), MetricsLog(config.run_dir)
    metrics.drop_after(0, ())
    metrics.append(StepFigures(step=1, trees=4))
    trackers.start(0)
    await wait_until_async(lambda: trackers.complaint)
    down.unlink()
    await trackers.close()
    assert (steps_of(file), trackers.complaint) == ([1], "")


async def test_a_tracker_that_hangs_delays_neither_steps_nor_the_end(configure: Configure, tmp_path: Path) -> None:
    file = tmp_path / "calls"
    config = configure(tracker=f"{OWN}:HangingTracker", tracker_options={"file": str(file)}, tracker_seconds=0.3)
    trackers, metrics = Trackers(config), MetricsLog(config.run_dir)
    metrics.drop_after(0, ())
    started = time.monotonic()
    trackers.start(0)
    metrics.append(StepFigures(step=1, trees=4))
    assert time.monotonic() - started < 0.1
    await wait_until_async(lambda: steps_of(file) == [1])
    ending = time.monotonic()
    async with asyncio.timeout(5):
        await trackers.close()
    assert time.monotonic() - ending < 3
    record = TrackingRecord.read(record_path(config.run_dir, config.tracker[0]))
    assert record.step == 0  # which it gets when the run goes on
    assert "does not answer" in trackers.complaint


@pytest.mark.parametrize(
    ("tracker", "said"),
    [
        ("wanbd", "'wanbd' is no tracker: give tensorboard, wandb, mlflow, swanlab, none"),
        (["wandb", "wandb"], "twice"),
    ],
)
def test_an_unknown_tracker_is_refused(configure: Configure, tracker: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        configure(tracker=tracker)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("swanlab", r"swanlab is not installed: pip install 'ibtpo\[swanlab\]'"),
        ("no_such.module:Tracker", "cannot be imported: ModuleNotFoundError"),
        (f"{OWN}:Missing", "cannot be imported: AttributeError"),
        (f"{OWN}:NoTracker", "no method log, trees, finish"),
    ],
)
def test_a_tracker_that_cannot_be_used_is_refused(name: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.learner.tracker_config.importlib.util.find_spec", lambda module: None)
    with pytest.raises(InvalidInput, match=said):
        check_trackers((name,))


def test_a_tracker_without_a_key_is_refused_unless_it_is_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE", "NETRC", "WANDB_MODE"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(InvalidInput, match=r"has no key: `wandb login`, or WANDB_API_KEY, or wandb\.mode=offline"):
        check_trackers(("wandb",), {"wandb": None})
    check_trackers(("wandb",), {"wandb": "offline"})
    monkeypatch.setenv("WANDB_MODE", "offline")
    check_trackers(("wandb",), {"wandb": None})
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_API_KEY", "key")
    check_trackers(("wandb",), {"wandb": None})
