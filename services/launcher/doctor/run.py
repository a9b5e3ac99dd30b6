"""Asks how a run is: what its learner last said, whether its accounts balance, what was given up, who serves it."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from services.launcher.display.durations import format_duration
from services.launcher.display.finding import Section
from shared.errors import shorten
from shared.protocol.replica import ReplicaInfo, ReplicaState
from shared.protocol.status import Accounts, RunState, RunStatus
from shared.tree.draw import WeightVersion

_ENDED = {RunState.FINISHED, RunState.STOPPED}
_SILENT_SECONDS = 30.0
_LONG_STEP_SECONDS = 600.0
"""As IbtpoNoProgress has it."""
_SHOWN_REASONS = 3


@dataclass(frozen=True, slots=True)
class RunFacts:
    status: RunStatus | None = None
    replicas: tuple[ReplicaInfo, ...] = ()
    learner_url: str | None = None


def examine_status(
    section: Section,
    status: RunStatus | None,
    replicas: Sequence[ReplicaInfo],
    seconds_since_step: float | None = None,
) -> None:
    if status is None:
        section.failed(
            "status", "its learner has never written one", "start the learner with this run's name and this Redis"
        )
        return
    is_going = status.state not in _ENDED and status.state is not RunState.FAILED
    steps = f"step {status.step}" + (f" of {status.total_steps}" if status.total_steps else "")
    shown = f"{status.state}, {steps}, {format_duration(status.seconds)} so far"
    silent = time.time() - status.time
    if status.state is RunState.FAILED:
        section.failed("status", f"{shown}: {status.message}", "the end of the learner's log says more")
    elif is_going and silent > _SILENT_SECONDS:
        section.failed(
            "status",
            f"{shown}; but its learner has written nothing for {format_duration(silent)}",
            "it is gone or hangs: see its log, start it again; it resumes from its checkpoint",
        )
    elif is_going and status.message:
        section.warning("status", f"{shown}: {status.message}", "docs/runbook.md, by what it says")
    else:
        section.ok("status", shown)
    _examine_accounts(section, status.accounts)
    if status.state is RunState.TRAINING and seconds_since_step is not None:
        _examine_step(section, seconds_since_step)
    if is_going:
        _examine_replicas(section, status, replicas)


def _examine_step(section: Section, seconds: float) -> None:
    shown = f"the last was {format_duration(seconds)} ago"
    if seconds > _LONG_STEP_SECONDS:
        section.failed("steps", shown, "no trees arrive, or the learner hangs (docs/runbook.md, IbtpoNoProgress)")
    else:
        section.ok("steps", shown)


def _examine_accounts(section: Section, accounts: Accounts) -> None:
    ends = {name: getattr(accounts, name) for name in ("used", "skipped", "stale", "failed", "outstanding")}
    shown = " + ".join(f"{count} {name}" for name, count in ends.items())
    if accounts.fed == sum(ends.values()):
        section.ok("accounts", f"{accounts.fed} fed = {shown}")
    else:
        section.failed(
            "accounts", f"{accounts.fed} fed, but {shown}", "restart the learner; it counts anew from its checkpoint"
        )


def examine_letters(section: Section, reasons: Counter[str]) -> None:
    if not reasons:
        section.ok("dead letters", "none: no task was given up")
        return
    shown = "; ".join(f"{count} × {shorten(reason)}" for reason, count in reasons.most_common(_SHOWN_REASONS))
    more = f"; {len(reasons) - _SHOWN_REASONS} other reasons" if len(reasons) > _SHOWN_REASONS else ""
    section.warning("dead letters", shown + more, "mend what the reason names; these tasks are not tried again")


def _examine_replicas(section: Section, status: RunStatus, replicas: Sequence[ReplicaInfo]) -> None:
    serving = [replica for replica in replicas if replica.state is ReplicaState.SERVING]
    if not replicas:
        section.failed(
            "replicas",
            f"none has announced itself for run {status.run!r}",
            f"start replicas with run={status.run} and this Redis; see their log if they are there",
        )
    elif not serving:
        section.failed("replicas", f"none of {len(replicas)} serves", "see the problem of each, below")
    else:
        section.ok("replicas", f"{len(serving)} of {len(replicas)} serve")


def examine_weights(
    section: Section, info: ReplicaInfo, served: WeightVersion | None, status: RunStatus | None
) -> None:
    """Whether a replica's state and weights are fit for the run."""
    if info.problem and not info.reads_tasks:
        section.failed(
            "problem", info.problem, "have the run's package there, and in rollout.plugins (docs/own-parts.md)"
        )
    elif info.problem:
        section.failed("problem", info.problem, "the learner's log says push_refused or push_failed, with the reason")
    elif info.state is not ReplicaState.SERVING:
        section.warning("state", str(info.state), "it gets weights within seconds, or says here what is wrong")
    version = served or info.version
    if version is None or status is None or status.version is None:
        return
    if version.origin != status.version.origin and version.generation >= status.version.generation:
        section.failed(
            "weights", f"it serves {version}, of another history than the run's {status.version}", "restart the replica"
        )
        return
    behind = status.version.number - version.number
    if behind <= 0 and version.generation == status.version.generation:
        section.ok("weights", f"serves {version.label}, the run's latest")
    elif version.generation == status.version.generation and behind <= (status.max_staleness or 0) + 1:
        section.ok("weights", f"serves {version.label}, {behind} behind the run's {status.version.label}")
    else:
        section.failed(
            "weights",
            f"serves {version.label}, the run has {status.version.label}; max_staleness is {status.max_staleness}",
            "its pushes fail: is its /dev/shm large enough, does the learner reach it? See the learner's log",
        )
