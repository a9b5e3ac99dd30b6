"""A small model learns by adapters alone."""

from pathlib import Path

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
from tests.learner.synthetic import V0, build_all, scored, task

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
