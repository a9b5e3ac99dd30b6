"""The status of a run, which its learner publishes: state, figures, accounts, replicas and queues."""

import re
from enum import StrEnum
from pathlib import PurePath
from typing import Any

from pydantic import Field, model_validator

from shared.protocol.act_probe import ActReading
from shared.protocol.figures import StepFigures
from shared.protocol.message import Message
from shared.protocol.replica import ReplicaInfo
from shared.protocol.waiting import Waiting
from shared.tree.draw import WeightVersion


class RunState(StrEnum):
    STARTING = "starting"
    EVALUATING = "evaluating"
    TRAINING = "training"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FINISHED = "finished"
    FAILED = "failed"


class Accounts(Message):
    """How many tasks there are of each end. At every moment fed = used + skipped + stale + failed + outstanding."""

    fed: int = 0
    used: int = 0
    skipped: int = 0
    stale: int = 0
    failed: int = 0
    outstanding: int = 0
    duplicates: int = 0
    foreign: int = 0


class AccuracyFigures(Message):
    """Held-out accuracy over `problems`; every error is a standard error over problems (METHOD, Probe).

    A figure that was not asked for, or that cannot be had, is None: maj@k of answers that nobody compares.
    """

    avg_at_k: float
    standard_error: float
    """Of avg@k."""
    pass_at_k: float | None = None
    pass_error: float | None = None
    maj_at_k: float | None = None
    maj_error: float | None = None
    problems: int
    answer_tokens: float | None = None
    """Mean over answers."""
    answer_tokens_p95: float | None = None
    truncated_share: float | None = None
    """Share of answers that the token limit cut."""
    no_answer_share: float | None = None
    """Share of answers that were judged and state no final answer."""


class SetAccuracy(AccuracyFigures):
    """That of one held-out set."""

    name: str
    k: int
    pass_at: dict[int, float] = Field(default_factory=dict)
    """pass@j for some j up to k."""
    pass_errors: dict[int, float] = Field(default_factory=dict)


_PASS_AT = re.compile(r"pass_at_([0-9]+)(_error)?")
_FLAT = "held_out/"


class Evaluation(AccuracyFigures):
    """Held-out accuracy of one policy version: that of each set, and their unweighted average."""

    step: int
    version: WeightVersion
    k: int | None = None
    """None where the sets differ in it."""
    sets: tuple[SetAccuracy, ...] = ()
    """Each with an answer that was judged."""
    is_partial: bool = False
    """Whether only the sets that were due were measured: then the average is of fewer sets than another's."""
    engine_gap: float | None = None
    """Mean |learner − engine| log-probability over answers that this version alone sampled."""

    @model_validator(mode="before")
    @classmethod
    def _read_other_forms(cls, value: Any) -> Any:
        """From a line of metrics.jsonl, also of an earlier release, whose sets were called files."""
        if not isinstance(value, dict):
            return value
        sets, plain = _unflatten(value)
        if "files" in plain:
            files = plain.pop("files")
            sets = [one | {"name": PurePath(one["file"]).stem, "k": plain.get("k")} for one in files]
            for one in sets:
                del one["file"]
        return plain | ({"sets": sets} if sets else {})

    def flat(self) -> dict[str, Any]:
        """One level of names, as metrics.jsonl and trackers have it: `avg_at_k`, `held_out/SET/avg_at_k`, …

        A figure that is None is left out.
        """
        row = self.model_dump(mode="json", exclude={"sets"}, exclude_none=True)
        for one in self.sets:
            figures = one.model_dump(exclude={"name", "pass_at", "pass_errors"}, exclude_none=True)
            figures |= {f"pass_at_{k}": value for k, value in one.pass_at.items()}
            figures |= {f"pass_at_{k}_error": value for k, value in one.pass_errors.items()}
            row |= {f"{_FLAT}{one.name}/{name}": value for name, value in figures.items()}
        return row


def _unflatten(row: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The sets of a flat row, and what is not of a set."""
    sets: dict[str, dict[str, Any]] = {}
    for key, value in row.items():
        if key.startswith(_FLAT):
            name, _, measure = key.removeprefix(_FLAT).rpartition("/")
            one = sets.setdefault(name, {"name": name})
            if found := _PASS_AT.fullmatch(measure):
                one.setdefault("pass_errors" if found[2] else "pass_at", {})[int(found[1])] = value
            else:
                one[measure] = value
    return list(sets.values()), {key: value for key, value in row.items() if not key.startswith(_FLAT)}


class RunStatus(Message):
    """Where a run is, at `time` (seconds since the epoch)."""

    run: str
    state: RunState
    version: WeightVersion | None = None
    max_staleness: int | None = None
    """How many updates older than `version` the weights of a tree may be."""
    acts: tuple[ActReading, ...] = ()
    """What the last published weights said of the act-probe in the learner."""
    act_tolerance: float | None = None
    """How far a replica's may be from that, in nats; None: as far as rounding explains."""
    step: int = 0
    total_steps: int = 0
    seconds: float = 0.0
    eta_seconds: float | None = None
    figures: StepFigures = Field(default_factory=StepFigures)
    accounts: Accounts = Field(default_factory=Accounts)
    evaluations: tuple[Evaluation, ...] = ()
    replicas: tuple[ReplicaInfo, ...] = ()
    queued_tasks: int = 0
    pending_tasks: int = 0
    queued_trees: int = 0
    rank_silent_seconds: tuple[float, ...] = ()
    """How long ago each rank of a learner of several gave a sign of life."""
    waiting_for: Waiting | None = None
    """What its learner does, or has others do, that takes time."""
    message: str = ""
    time: float = 0.0
