"""Every preset trains: trees grown by the engine with the demo's model, and two updates on them."""

import asyncio
import copy
import math
import random
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from services.demo.difficulty import Difficulty
from services.demo.expressions import evaluate, prompt_of
from services.demo.split import Split, generate_in
from services.demo.task import checkpoint_directory
from services.launcher.settings.plan import RunRequest, make_run_plan
from services.learner.config import LearnerConfig
from services.learner.model.policy import Policy
from services.learner.training.trainer import Trainer
from services.learner.training.trajectories import BuiltTree
from services.rollout.engines.embedded import EmbeddedEngine, EmbeddedSettings
from services.rollout.grower import TreeGrower
from services.rollout.rewards import Reward
from services.rollout.vocabulary import Vocabulary
from shared.protocol.task import Growth, Task
from shared.protocol.tree import ScoredTree
from shared.runtime.config import preset_names
from shared.tree.draw import WeightVersion
from shared.tree.samplers import IndependentSampler

VERSION = WeightVersion(1, 0)
PROBLEMS, WIDE = 4, 32
DIFFICULTY = Difficulty(lengths=(4,))
"""Short ones, to some of which the model gives right and wrong answers."""


class BoxedRewards:
    """Right if the box holds the gold digit."""

    async def reward(self, kind: str, response: str, answer_key: dict[str, Any]) -> Reward:
        boxed = re.search(r"\\boxed\{(\d)\}", response)
        return Reward(float(boxed is not None and boxed[1] == answer_key["gold"]))


def configure(preset: str) -> LearnerConfig:
    """As `ibtpo train --config PRESET --task demo` has it; short answers have a short limit."""
    request = RunRequest(None, preset, ("launcher.task=demo", "total_steps=2", "max_tokens=24"))
    return make_run_plan(Path("nowhere"), request).learner


def tasks(growth: Growth, vocabulary: Vocabulary) -> Iterable[Task]:
    rng = random.Random(3)
    for number in range(PROBLEMS if growth.sampler.num_draws <= WIDE else 2):
        expression = generate_in(Split.TRAIN, rng, DIFFICULTY)
        yield Task(
            run="run",
            id=f"0-{number}",
            problem_id=f"p{number}",
            prompt_ids=vocabulary.encode(prompt_of(expression)),
            kind="math",
            answer_key={"gold": str(evaluate(expression, DIFFICULTY.modulus))},
            growth=growth,
            seed=number,
        )


@pytest.fixture(scope="module")
def grown() -> dict[str, list[ScoredTree] | BaseException]:
    """The trees of every preset, grown at once; presets that grow alike share theirs. Or why there are none."""
    growths = {preset: configure(preset).growth for preset in preset_names()}
    distinct = list(dict.fromkeys(map(repr, growths.values())))
    by_text = {repr(growth): growth for growth in growths.values()}

    async def grow_all() -> list[list[ScoredTree] | BaseException]:
        engine, vocabulary = EmbeddedEngine(EmbeddedSettings(trace=False)), Vocabulary.load(checkpoint_directory())
        await engine.load(checkpoint_directory(), VERSION)
        grower = TreeGrower(engine, BoxedRewards(), "replica")

        async def grow(growth: Growth) -> list[ScoredTree]:
            return await asyncio.gather(*(grower.grow(task, vocabulary) for task in tasks(growth, vocabulary)))

        try:
            return await asyncio.gather(*(grow(by_text[text]) for text in distinct), return_exceptions=True)
        finally:
            await engine.close()

    trees = dict(zip(distinct, asyncio.run(grow_all()), strict=True))
    return {preset: trees[repr(growth)] for preset, growth in growths.items()}


@cache
def first_policy() -> Policy:
    """To be copied: what is read takes longer than what is trained."""
    config = configure("demo")
    return Policy(config.model, config.growth.temperature, config.optimizer)


@pytest.mark.parametrize("preset", preset_names())
def test_every_preset_trains_two_updates(preset: str, grown: dict[str, list[ScoredTree] | BaseException]) -> None:
    config, trees = configure(preset), grown[preset]
    if isinstance(trees, BaseException):
        raise trees
    built = [BuiltTree.of(tree) for tree in trees if config.trains_on(tree_rewards(tree))]
    assert len(built) >= 2, "trees whose rewards differ"
    forks = any(draw.parent is not None for tree in trees for draw in tree.draws)
    assert forks == (not isinstance(config.growth.sampler, IndependentSampler))
    policy = copy.deepcopy(first_policy())
    trainer = Trainer(policy, first_policy().model if config.needs_reference else None, config)
    for step, part in enumerate((built[::2], built[1::2])):
        before = weights_of(policy)
        update = trainer.step(part, VERSION, config.optimizer.lr, str(step))
        assert update.applied >= 1
        assert update.refused == 0
        assert update.loss is not None
        assert math.isfinite(update.loss)
        assert not torch.equal(weights_of(policy), before)


def tree_rewards(tree: ScoredTree) -> list[float]:
    return [draw.reward for draw in tree.draws if draw.reward is not None]


def weights_of(policy: Policy) -> torch.Tensor:
    return torch.cat([one.detach().flatten() for one in policy.model.module.parameters()])
