"""A small model learns by adapters alone."""

import random
from pathlib import Path

import pytest
import torch
from torch import Tensor

from services.learner.config import AdapterConfig
from services.learner.model.adapters import Adapters
from services.learner.model.policy import Policy
from services.learner.training.trainer import Trainer
from shared.protocol.tree import ScoredTree
from shared.tree.draw import Draw, Finish, VersionSpan
from tests.learner.conftest import Configure
from tests.learner.policies import write_policy
from tests.learner.synthetic import V0, build_all, draws, scored, task

PROMPT, GOOD, LENGTH = (3, 4, 5), 8, 4


@torch.no_grad()
def sample(policy: Policy, count: int) -> tuple[Tensor, Tensor]:
    """Answers and their log-probabilities [count, LENGTH]."""
    ids = torch.tensor([PROMPT] * count)
    logprobs = []
    for _ in range(LENGTH):
        of_next = policy.model.module(ids).logits[:, -1].log_softmax(-1)
        chosen = torch.multinomial(of_next.exp(), 1)
        logprobs.append(of_next.gather(1, chosen))
        ids = torch.cat([ids, chosen], 1)
    return ids[:, len(PROMPT) :], torch.cat(logprobs, 1)


def tree(policy: Policy, count: int = 64) -> ScoredTree:
    """Independent answers, right where they have the good token."""
    ids, logprobs = sample(policy, count)
    return scored(
        task(prompt_ids=PROMPT),
        [
            Draw(
                parent=None,
                cut=0,
                token_ids=tuple(answer),
                logprobs=tuple(of_answer),
                step_ends=(LENGTH,),
                spans=(VersionSpan(V0, 0, LENGTH),),
                finish=Finish.STOP,
                reward=float(GOOD in answer),
            )
            for answer, of_answer in zip(ids.tolist(), logprobs.tolist(), strict=True)
        ],
    )


def reward(policy: Policy) -> float:
    return float((sample(policy, 512)[0] == GOOD).any(1).float().mean())


def test_a_small_model_learns_by_adapters_alone(configure: Configure, tmp_path: Path) -> None:
    torch.manual_seed(0)
    base = write_policy(tmp_path / "base", initializer_range=0.2)  # with less, its frozen head knows no preference
    config = configure(model=base, advantage="grpo")
    policy = Policy(base, 1.0, config.optimizer, adapters=Adapters(AdapterConfig(rank=4, alpha=8), base))
    trainer = Trainer(policy, policy.model.without_adapters(), config)
    before = reward(policy)
    for step in range(12):
        update = trainer.step(build_all([tree(policy)]), V0, 0.02, str(step))
    assert before < 0.3
    assert reward(policy) > 0.9
    assert update.kl is not None
    assert update.kl > 0


def test_adapters_get_the_same_gradients_whether_prefixes_are_shared_or_not(
    configure: Configure, policy_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    trees = build_all([scored(task(), draws(random.Random(1), rewards=(1.0, 0.0)))])
    for shares in (True, False):
        config = configure(objective={"share_prefixes": shares})
        policy = Policy(policy_dir, 1.0, config.optimizer, adapters=Adapters(AdapterConfig(rank=4), policy_dir))
        gradients: list[Tensor] = []

        def note(lr: float, policy: Policy = policy, gradients: list[Tensor] = gradients) -> float:
            gradients += [one.grad.clone() for one in policy.model.module.parameters() if one.grad is not None]
            return 1.0

        with torch.no_grad():
            for name, weight in policy.model.module.named_parameters():
                if ".lora_B." in name:  # at 0 it would leave A without a gradient
                    weight.copy_(torch.randn(weight.shape, generator=torch.manual_seed(0)))
        monkeypatch.setattr(policy, "apply_gradients", note)
        Trainer(policy, policy.model.without_adapters(), config).step(trees, V0, 1e-3, "")
        found.append(gradients)
    assert len(found[0]) == len(found[1]) == 28
    for shared, apart in zip(*found, strict=True):
        assert torch.allclose(shared, apart, rtol=1e-4, atol=1e-6 * float(apart.abs().max()))
