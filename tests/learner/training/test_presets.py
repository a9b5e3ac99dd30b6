"""Presets that are named after a clip: `tests/system/test_presets.py` runs them and sees it act."""

import random
from pathlib import Path

from services.learner.config import LearnerConfig
from services.learner.model.policy import Policy
from services.learner.objective_config import RatioLevel, Ties
from services.learner.training.terms import CispoSurrogate
from services.learner.training.trainer import Trainer
from shared.runtime.config import load_config
from shared.tree.credit import GRPOCredit
from tests.learner.synthetic import V1, build_all, draws, scored, task

LR = 5e-4
"""The demo's."""


def configure(preset: str | None, policy_dir: Path) -> LearnerConfig:
    given = [f"learner.model={policy_dir}", "learner.data=problems.jsonl", "learner.total_steps=3"]
    given += ["learner.growth.sampler=independent"] if preset is None else []
    return load_config(LearnerConfig, "learner", preset, given)


def clip_shares(config: LearnerConfig) -> list[float | None]:
    """Of three steps on eight trees each."""
    rng = random.Random(1)
    trees = [scored(task(n), draws(rng, 8, 0, rewards=(1.0, 0.0, 0.0), max_tokens=16)) for n in range(8)]
    trainer = Trainer(Policy(config.model, 1.0, config.optimizer), None, config)
    return [trainer.step(build_all(trees), V1, LR, str(step)).clip_share for step in range(3)]


def test_without_a_second_update_no_clip_acts(policy_dir: Path) -> None:
    config = configure(None, policy_dir)
    assert config.objective.updates_per_step == 1
    objective = config.objective.model_copy(update={"kl_coef": 0.0})
    assert clip_shares(config.model_copy(update={"objective": objective})) == [0.0, 0.0, 0.0]


def test_presets_are_what_they_are_named_after(policy_dir: Path) -> None:
    dapo, gspo, cispo = (configure(preset, policy_dir) for preset in ("dapo", "gspo", "cispo"))
    assert dapo.objective.ties is Ties.REFILL
    assert dapo.objective.overlong_share == 0.2
    assert dapo.objective.overlong_penalty == 0.5  # 1 of rewards that are −1 and 1
    assert gspo.objective.ratio is RatioLevel.SEQUENCE
    assert cispo.objective.surrogate == CispoSurrogate()
    for config in (dapo, gspo, cispo):
        assert config.advantage == GRPOCredit()
        assert not config.needs_reference
