"""`ibtpo track`: sends what the trackers of a run have not got, when it is over."""

from collections.abc import Sequence
from pathlib import Path

from services.launcher.runs.run_dir import RunDirectory, find_run
from services.launcher.tracking.choice import make_tracker, without_keys
from services.launcher.tracking.sender import Sender
from services.learner.config import LearnerConfig
from services.learner.record.tracking import TrackingRecord, make_order, record_path, write_problem
from services.learner.tracker_config import check_trackers
from shared.errors import Conflict, InvalidInput, Unavailable
from shared.runtime.config import load_config


def track(runs: Path, name: str | None, settings: Sequence[str]) -> int:
    """Sends to each tracker; `settings` may name others than the run's. Conflict while the run goes on."""
    run = find_run(runs, name)
    if run.is_running():
        raise Conflict(f"run {run.name!r} is going on, and its learner sends it: `ibtpo status {run.name}` says how")
    config = _read_config(run, settings)
    if not config.tracker:
        raise InvalidInput(f"run {run.name!r} has no tracker: name one, such as tracker=wandb")
    check_trackers(config.tracker, config.tracker_modes)
    failures = [tracker for tracker in config.tracker if not _send(config, tracker)]
    if failures:
        raise Unavailable(f"{' and '.join(failures)} did not get all of run {run.name!r}; the same command goes on")
    return 0


def _read_config(run: RunDirectory, settings: Sequence[str]) -> LearnerConfig:
    """The run's, wherever its folder is now."""
    if not run.config.exists():
        raise InvalidInput(f"{run.root} has no config.toml: it is no run's folder")
    here = [f"learner.run={run.name}", f"learner.run_dir={run.root.resolve()}"]
    return load_config(LearnerConfig, "learner", run.config, [*here, *settings])


def _send(config: LearnerConfig, tracker: str) -> bool:
    """Whether it has all now."""
    order, path = make_order(config, tracker, None), record_path(config.run_dir, tracker)
    try:
        sender = Sender(order, make_tracker(tracker, order.options))
        sender.start()
        sender.finish()
    except Exception as error:  # noqa: BLE001 - whatever a tracker's library raises
        write_problem(path, reason := without_keys(f"{type(error).__name__}: {error}"))
        print(f"{tracker}: {reason}")
        return False
    record = TrackingRecord.read(path)
    print(f"{tracker}: all of {record.step} steps; see {record.url or tracker}")
    return True
