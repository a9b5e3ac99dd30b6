"""What the learner tells the process that sends a run to a tracker, and what that keeps in the run's folder."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from services.learner.config import LearnerConfig
from shared.files import atomic_write
from shared.runtime.config.url import without_secrets

Scalar = str | float | int | bool
_SECRET = re.compile(r"token|password|secret|api_?key|authorization|credential", re.IGNORECASE)
_NOT_SENT = {"url_file", "tracker_options", "redis_url"}


class TrackingOrder(BaseModel):
    """What one process is to send to one tracker: a line of JSON, the first on its standard input."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run: str
    run_dir: Path
    tracker: str
    options: dict[str, Any]
    """The tracker's own settings."""
    config: dict[str, Scalar]
    step: int | None = None
    """Later steps are written again, if the run came back to this one; None: it goes on."""
    end_seconds: float = 10.0
    """How long it may take once its standard input is closed."""


class TrackingRecord(BaseModel):
    """How much of the run a tracker has, and under which id: trackers/NAME.json in the run's folder."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str = ""
    url: str = ""
    """Where to see it; empty if not known."""
    step: int = 0
    """The last step that it has."""
    evaluation: int = -1
    """The step of the last evaluation that it has."""
    problem: str = ""
    """Why it gets nothing now."""

    @classmethod
    def read(cls, path: Path) -> "TrackingRecord":
        """The record; a new one where there is none that can be read."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            return cls()

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, self.model_dump_json(indent=1) + "\n")


def record_path(run_dir: Path, tracker: str) -> Path:
    return run_dir / "trackers" / f"{re.sub(r'[^A-Za-z0-9_.-]', '_', tracker)}.json"


def make_order(config: LearnerConfig, tracker: str, step: int | None) -> TrackingOrder:
    """For one of the run's trackers."""
    table = getattr(config, tracker, None)
    options = table.model_dump() if isinstance(table, BaseModel) else dict(config.tracker_options)
    return TrackingOrder(
        run=config.run,
        run_dir=config.run_dir.absolute(),
        tracker=tracker,
        options={} if tracker == "tensorboard" else options,
        config=dict(flatten_public({"learner": config.model_dump(mode="json", exclude_none=True)})),
        step=step,
        end_seconds=config.tracker_seconds,
    )


def flatten_public(tables: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Scalar]]:
    """(`section.table.key`, value) of every setting, secrets blanked; lists as text."""
    for key, value in tables.items():
        path = f"{prefix}{key}"
        if key in _NOT_SENT:
            continue
        if isinstance(value, Mapping):
            yield from flatten_public(value, f"{path}.")
        elif value is not None:
            yield path, "***" if value and _is_secret(key, value) else _public(value)


def _is_secret(key: str, value: object) -> bool:
    return bool(_SECRET.search(key)) and isinstance(value, str)


def _public(value: object) -> Scalar:
    if isinstance(value, str) and "://" in value:
        return without_secrets(value)
    if isinstance(value, list | tuple):
        return ", ".join(str(_public(one)) for one in value)
    return value if isinstance(value, Scalar) else str(value)


def write_problem(path: Path, problem: str) -> None:
    """Keeps why the tracker gets nothing now."""
    TrackingRecord.read(path).model_copy(update={"problem": problem}).write(path)
