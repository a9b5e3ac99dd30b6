"""Run directories: where each file of a run is, whether the run is going on, and which runs exist."""

import contextlib
import fcntl
import json
import re
import shlex
from collections.abc import Iterator
from itertools import chain, count
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from shared.errors import Conflict, InvalidInput
from shared.files import atomic_write
from shared.protocol.names import RUN_NAME


class RunRecord(BaseModel):
    """run.json: how another terminal reaches a run. The Redis URL may hold a password, so the file has mode 0600."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    run: str
    pid: int
    started: float
    redis_url: str
    redis_description: str
    verifier_url: str | None = None
    learner_url: str | None = None
    rollout_urls: dict[str, str] = {}
    pids: dict[str, int] = {}


class RunDirectory:
    """runs/<name>. It is only paths until `make`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.name = root.name
        self.config = root / "config.toml"
        self.record = root / "run.json"
        self.metrics = root / "metrics.jsonl"
        self.summary = root / "summary.json"
        self.trees = root / "trees"
        self.evaluations = root / "evaluations"
        self.plots = root / "plots"
        self.report = root / "report.html"
        self.policy = root / "policy"
        self.checkpoints = root / "checkpoints"

    @property
    def is_finished(self) -> bool:
        """Whether the last step is done: only then the learner writes summary.json."""
        return self.summary.exists()

    @property
    def has_begun(self) -> bool:
        return self.config.exists()

    @property
    def has_trained(self) -> bool:
        """Whether it holds anything that a launch which failed at its start does not leave."""
        return self.metrics.exists() or self.checkpoints.exists()

    @property
    def resume_command(self) -> str:
        """The command that continues the run."""
        runs = "" if self.root.parent == Path("runs") else f" --runs {shlex.quote(str(self.root.parent))}"
        return f"ibtpo train --run {shlex.quote(self.name)} --resume{runs}"

    def read_summary(self) -> dict[str, float | int | str | None]:
        """summary.json; empty while the run is not finished, and where it cannot be read."""
        try:
            found = json.loads(self.summary.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def log(self, service: str) -> Path:
        """The JSON-lines log of one service."""
        return self.root / "logs" / f"{service}.jsonl"

    def url_file(self, service: str) -> Path:
        """Where a service writes the URL on which it listens."""
        return self.root / "urls" / f"{service}.url"

    def make(self) -> None:
        """Makes the directories to which a launcher writes."""
        for part in (self.root, self.root / "logs", self.root / "urls", self.root / "redis"):
            part.mkdir(parents=True, exist_ok=True)

    def write_record(self, record: RunRecord) -> None:
        """Replaces run.json whole."""
        atomic_write(self.record, record.model_dump_json(indent=2), mode=0o600)

    def read_record(self) -> RunRecord | None:
        """The record; None when there is none that can be read."""
        try:
            return RunRecord.model_validate_json(self.record.read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """The launcher's, while the run goes on; Conflict when another launcher holds it."""
        self.root.mkdir(parents=True, exist_ok=True)
        with (self.root / ".lock").open("ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise Conflict(
                    f"run {self.name!r} is going on already: watch it with `ibtpo status {self.name}`, end it with "
                    f"`ibtpo stop {self.name}`, or choose another name with --run"
                ) from error
            yield

    def raise_if_running(self) -> None:
        """Conflict when a launcher on this machine holds the run."""
        if (self.root / ".lock").exists():
            with self.lock():
                pass

    def is_running(self) -> bool:
        """Whether a launcher on this machine holds the run."""
        try:
            self.raise_if_running()
        except Conflict:
            return True
        return False


def directory_of(runs: Path, name: str) -> RunDirectory:
    """The directory of the run called `name`; InvalidInput for a name that cannot be one."""
    if not re.fullmatch(RUN_NAME, name):
        raise InvalidInput(f"a run is named with letters, digits, '-', '_' and '.', at most 64 of them, not {name!r}")
    return RunDirectory(runs / name)


def known_runs(runs: Path) -> list[RunDirectory]:
    """Those that have begun, the latest first."""
    begun = sorted(runs.glob("*/config.toml"), key=lambda config: config.stat().st_mtime, reverse=True)
    return [RunDirectory(config.parent) for config in begun]


def find_run(runs: Path, name: str | None) -> RunDirectory:
    """The run called `name` (or at that path), or the latest one; InvalidInput that names those there are."""
    known = known_runs(runs)
    if name is None:
        if not known:
            raise InvalidInput(f"there is no run under {runs}/ yet: `ibtpo demo` makes one")
        return known[0]
    run = RunDirectory(Path(name)) if (Path(name) / "config.toml").exists() else directory_of(runs, name)
    if not run.has_begun:
        names = ", ".join(one.name for one in known) or "none"
        raise InvalidInput(f"there is no run {name!r} under {runs}/; there are: {names}")
    return run


def candidate_names(runs: Path, name: str) -> Iterator[str]:
    """`name`, `name-2`, and so on, up to the first that is not taken."""
    for candidate in chain((name,), (f"{name}-{number}" for number in count(2))):
        yield candidate
        if not RunDirectory(runs / candidate).has_begun:
            return
