"""What the learner says that it waits for: how far that is, why nothing comes, and what helps."""

import pytest

from services.learner.serving.waiting import describe_wait
from services.learner.waits import Waits
from shared.protocol.replica import ReplicaInfo, ReplicaState
from shared.protocol.waiting import WaitKind
from shared.tree.draw import WeightVersion


def replica(name: str, state: ReplicaState, **changes: object) -> ReplicaInfo:
    values = {"name": name, "url": "http://x", "state": state, "version": None}
    return ReplicaInfo.model_validate(values | changes)


def test_the_innermost_wait_is_the_one_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("time.time", lambda: now)
    waits = Waits()
    assert waits.current is None
    with waits.on(WaitKind.EVALUATION, "evaluation at step 0", unit="problems") as outer:
        outer.begin(4, 14)
        with waits.on(WaitKind.REDIS, "Redis"):
            assert waits.current is not None
            assert waits.current.what == "Redis"
        now = 1010.0
        outer.advance(2)
        now = 1020.0
        assert waits.current is outer
        said = outer.message()
    assert (said.done, said.total, said.since, said.moved) == (6, 14, 1000.0, 1010.0)
    assert said.eta_seconds == 80.0  # what was done before does not count for the pace
    assert waits.current is None


@pytest.mark.parametrize(
    ("replicas", "reason", "remedy"),
    [
        ((), "no replica announces itself", "rollout run=mine redis_url="),
        ((replica("a", ReplicaState.SERVING), replica("b", ReplicaState.WAITING, problem="full")), "", ""),
        ((replica("a", ReplicaState.WAITING, loading=WeightVersion(1, 3)),), "a loads v3", "logs"),
        ((replica("a", ReplicaState.WAITING, problem="no space"),), "serves this run's weights; a: no space", "doctor"),
        ((replica("a", ReplicaState.SERVING, problem="refused"),), "no replica gets verdicts; a: refused", "verifier"),
        ((replica("a", ReplicaState.WAITING),), "they wait for this run's weights (a)", "reach the learner"),
        ((replica("a", ReplicaState.DRAINING),), "they end (a)", "doctor"),
    ],
)
def test_a_wait_for_replicas_says_why_they_bring_nothing(
    replicas: tuple[ReplicaInfo, ...], reason: str, remedy: str
) -> None:
    waits = Waits()
    with waits.on(WaitKind.TREES, "trees of step 1", needs_replicas=True):
        said = describe_wait(waits.current, replicas, "", "mine")
        known = describe_wait(waits.current, replicas, "a rank is silent", "mine")
    assert said is not None
    assert known is not None
    assert reason in said.detail
    assert remedy in said.remedy
    assert known.detail.endswith("a rank is silent")
