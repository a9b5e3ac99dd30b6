"""The method table: sampler and credit take from it what they do not state."""

from collections.abc import Callable
from typing import Any

import pytest

from services.learner.config import LearnerConfig
from services.learner.ledger import TaskId
from services.learner.queue.problems import EncodedProblem
from services.learner.queue.task_sequence import TaskSequence
from shared.runtime.config import ConfigError, load_config
from shared.tree.credit import GRPOCredit, IBTPOCredit, TreeRLCredit
from shared.tree.ib_score import Confidence, IBSettings, ScoreForm
from shared.tree.samplers import IBSampler
from shared.tree.values import Backup, Shrunk

GIVEN = ("model=m", "data=d", "total_steps=1", "sampler=ib")


def learner(*overrides: str) -> LearnerConfig:
    return load_config(LearnerConfig, "learner", None, [*GIVEN, *overrides])


def score(config: LearnerConfig) -> IBSettings:
    assert isinstance(config.growth.sampler, IBSampler)
    return config.growth.sampler.score


@pytest.mark.parametrize(
    ("override", "changed"),
    [
        ("beta=3", lambda one: one.beta == 3.0),
        ("values=shrunk", lambda one: one.values == Shrunk()),
        ("values={kind = 'shrunk', kappa = 7}", lambda one: one.values == Shrunk(kappa=7.0)),
        ("confidence=joint", lambda one: one.confidence is Confidence.JOINT),
    ],
)
def test_one_setting_changes_the_score_and_the_credit(override: str, changed: Callable[[Any], bool]) -> None:
    config = learner(override)
    assert changed(score(config))
    assert changed(config.advantage)
    assert not changed(score(learner()))
    assert not changed(learner().advantage)


def test_what_they_state_is_their_own() -> None:
    config = learner("beta=3", "sampler.score.beta=2", "sampler.score.form=exact", "advantage.lam=0.5", "lam=0.2")
    assert score(config) == IBSettings(beta=2.0, form=ScoreForm.EXACT)
    assert config.advantage == IBTPOCredit(beta=3.0, lam=0.5)
    assert learner("beta=3", "advantage.beta=4").advantage.beta == 4.0


def test_a_credit_takes_what_it_has_in_common_with_the_method() -> None:
    assert learner("beta=3", "lam=0.5", "advantage=grpo").advantage == GRPOCredit()
    changed = learner("advantage={kind = 'grpo', epsilon = 0.1}", "lam=1").advantage
    assert changed == GRPOCredit(epsilon=0.1)
    assert learner("advantage=treerl").advantage == TreeRLCredit()
    assert learner("advantage={centred = true}", "beta=3").advantage == IBTPOCredit(beta=3.0, centred=True)


@pytest.mark.parametrize("kind", ["siblings", "spo-tree"])
def test_a_credit_that_compares_v2_keeps_it_whatever_the_method_has(kind: str) -> None:
    assert learner(f"advantage={kind}").advantage.values == Backup()
    assert learner(f"advantage={kind}", "values=shrunk").advantage.values == Backup()
    config = learner(f"advantage={{kind = '{kind}', values = 'shrunk'}}", "values=shrunk")
    assert config.advantage.values == Shrunk()
    assert LearnerConfig.model_validate(config.model_dump(mode="json", exclude_none=True)) == config


def test_trees_of_a_sampler_without_a_score_are_scored_by_the_method() -> None:
    config = learner("sampler=random", "beta=3")
    assert config.growth.sampler.num_draws == 12
    assert config.score == IBSettings(beta=3.0)
    problem = EncodedProblem("p", (1, 2), "math", {})
    sequence = TaskSequence("mine", 0, [problem], config.growth, config.score)
    assert sequence.task(TaskId(0, 0)).score.beta == 3.0


@pytest.mark.parametrize(
    "overrides",
    [(), ("beta=3",), ("lam=0.2", "advantage.beta=4", "sampler.score.confidence=joint")],
)
def test_a_saved_configuration_is_the_same_and_still_follows_the_method(overrides: tuple[str, ...]) -> None:
    config = learner(*overrides)
    saved = config.model_dump(mode="json", exclude_none=True)
    assert LearnerConfig.model_validate(saved) == config
    later = LearnerConfig.model_validate(saved | {"method": saved["method"] | {"values": {"kind": "backup"}}})
    assert later.advantage.values == score(later).values == Backup()


@pytest.mark.parametrize(
    "wrong",
    ["beta=0", "lam=-1", "values={kind = 'shrunk', kappa = nan}", "advantage=ppo", "method.gamma=1", "values=best"],
)
def test_a_wrong_setting_is_refused_by_its_key(wrong: str) -> None:
    with pytest.raises(ConfigError, match=r"learner\.(method|advantage)"):
        learner(wrong)


def test_the_learning_rate_is_the_policys_beside_that_of_a_value_head() -> None:
    assert learner("lr=1e-4").optimizer.lr == 1e-4
    assert learner("value_head={}", "value_head.head_lr=0.5").optimizer.lr == 1e-6
