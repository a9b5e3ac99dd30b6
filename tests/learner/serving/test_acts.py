"""The learner names replicas whose weights do not act as it published them."""

from pathlib import Path
from typing import Any, cast

import pytest

from services.learner.config import OptimizerConfig
from services.learner.metrics import LearnerMetrics
from services.learner.model.policy import Policy
from services.learner.model.process_group import SINGLE_PROCESS
from services.learner.ranks import RankWorkers
from services.learner.serving.acts import PublishedActs
from shared.protocol.act_probe import ActReading
from shared.protocol.replica import ReplicaInfo, ReplicaState
from shared.tree.draw import WeightVersion


def ranks_of(directory: Path) -> RankWorkers:
    return RankWorkers(SINGLE_PROCESS, Policy(directory, 0.7, OptimizerConfig()), cast(Any, None))


def replica(name: str, act: ActReading | None) -> ReplicaInfo:
    version = act and act.version
    return ReplicaInfo(name=name, url=f"http://{name}", state=ReplicaState.SERVING, version=version, act=act)


def version(number: int) -> WeightVersion:
    return WeightVersion(1, number, "beef")


def test_a_replica_that_differs_is_named_and_counted_once(policy_dir: Path) -> None:
    metrics = LearnerMetrics()
    acts, ranks = PublishedActs(metrics), ranks_of(policy_dir)
    for number in range(10):
        acts.read(ranks, version(number))
    assert [one.version.number for one in acts.readings] == [*range(2, 10)]
    ours = acts.readings[-1]
    assert ours.is_float32
    assert len(ours.logprobs) == 62  # of a context of 64
    other = ActReading.of(version(9), ours.vocab_size, [one + 1.0 for one in ours.logprobs], is_float32=True)
    forgotten = other.model_copy(update={"version": version(1)})
    of_none = other.model_copy(update={"version": WeightVersion(0, 0)})
    sound = [replica("a", ours), replica("b", None), replica("c", forgotten), replica("d", of_none)]
    acts.compare(sound)
    assert acts.complaint == ""
    for _ in range(2):
        acts.compare([*sound, replica("e", other)])
        assert acts.complaint.startswith("replica e: weights 1.9-beef do not act as published: 1 nats from the learner")
    assert metrics.registry.get_sample_value("ibtpo_learner_weight_faults_total") == 1.0
    assert metrics.registry.get_sample_value("ibtpo_learner_faulty_replicas") == 1.0
    acts.compare(sound)
    assert (acts.complaint, metrics.registry.get_sample_value("ibtpo_learner_faulty_replicas")) == ("", 0.0)


def test_a_learner_that_cannot_read_goes_on_without(policy_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ranks, acts = ranks_of(policy_dir), PublishedActs(LearnerMetrics())

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA error")

    monkeypatch.setattr(ranks.policy.model.module, "forward", fail)
    acts.read(ranks, version(1))
    assert acts.readings == ()
