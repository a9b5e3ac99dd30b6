"""Where top-p and top-k cut the support, π_old/μ is that to what the engine sampled from."""

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModelForCausalLM

from services.learner.model.policy import Policy
from services.learner.training.packing import MicroBatch
from services.learner.training.trainer import Trainer
from services.rollout.engines.embedded import EmbeddedEngine, EmbeddedSettings
from services.rollout.engines.engine import Request, Sampling
from shared.protocol.tree import ScoredTree
from shared.tree.draw import Draw
from tests.learner.conftest import Configure
from tests.learner.policies import EOS_ID
from tests.learner.synthetic import V1, build_all, scored, task

TOP_P, TOP_K, TEMPERATURE = 0.6, 9, 0.7
NUM_ANSWERS, MAX_TOKENS = 6, 12


async def sample(policy_dir: Path) -> ScoredTree:
    """Answers of the embedded engine; each other one is right."""
    engine = EmbeddedEngine(EmbeddedSettings(trace=False))
    try:
        await engine.load(policy_dir, V1)
        prompt_ids, draws = task().prompt_ids, []
        for number in range(NUM_ANSWERS):
            sampling = Sampling(TEMPERATURE, TOP_P, TOP_K)
            answer = await engine.complete(Request(prompt_ids, MAX_TOKENS, sampling, frozenset({EOS_ID}), number))
            draws.append(
                Draw(
                    parent=None,
                    cut=0,
                    token_ids=answer.token_ids,
                    logprobs=answer.logprobs,
                    sampling_logprobs=answer.sampling_logprobs,
                    step_ends=(len(answer.token_ids),),
                    spans=answer.spans,
                    finish=answer.finish,
                    reward=float(number % 2),
                )
            )
    finally:
        await engine.close()
    return scored(task(), draws)


def kept_mass(logprobs_V: torch.Tensor) -> float:
    """Of the fewest of the top k tokens that reach top-p of their mass; written anew."""
    likeliest = sorted(logprobs_V.double().exp().tolist(), reverse=True)[:TOP_K]
    total, kept = sum(likeliest), 0.0
    for probability in likeliest:
        if kept >= TOP_P * total:
            break
        kept += probability
    return kept


def weights_of(tree: ScoredTree, config: Any, monkeypatch: pytest.MonkeyPatch) -> list[list[float]]:
    """By how much the surrogate of each answer's tokens counts, as the trainer computes it."""
    policy = Policy(config.model, TEMPERATURE, config.optimizer)
    trainer = Trainer(policy, None, config)
    found: list[list[float]] = []
    mismatch = trainer._objective._mismatch

    def note(old_BT: torch.Tensor, batch: MicroBatch) -> tuple[torch.Tensor, torch.Tensor]:
        weights_BT, is_masked_BT = mismatch(old_BT, batch)
        by_index = dict(zip(batch.indices, zip(weights_BT, batch.is_answer_BT, strict=True), strict=True))
        found.extend(weights_T[is_answer_T].tolist() for _, (weights_T, is_answer_T) in sorted(by_index.items()))
        return weights_BT, is_masked_BT

    monkeypatch.setattr(trainer._objective, "_mismatch", note)
    trainer.step(build_all([tree]), V1, 1e-3, "seed")
    return found


async def test_the_weight_of_a_token_is_the_mass_that_the_engine_kept(
    policy_dir: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Engine and learner have the same weights, so that the cut is all that differs."""
    tree = await sample(policy_dir)
    growth = {"sampler": "independent", "temperature": TEMPERATURE, "top_p": TOP_P, "top_k": TOP_K}
    model = AutoModelForCausalLM.from_pretrained(policy_dir).eval()
    prompt = tree.task.prompt_ids
    expected = []
    for draw in tree.draws:
        assert draw.sampling_logprobs is not None
        assert all(cut >= whole for cut, whole in zip(draw.sampling_logprobs, draw.logprobs, strict=True))
        with torch.no_grad():
            logits = model(torch.tensor([[*prompt, *draw.token_ids]])).logits[0, len(prompt) - 1 : -1]
        expected.append([kept_mass(row) for row in (logits / TEMPERATURE).log_softmax(-1)])
    assert all(mass < 0.95 for masses in expected for mass in masses)

    for old_policy in ("recomputed", "engine"):
        objective = {"kl_coef": 0.0, "old_policy": old_policy}
        config = configure(growth=growth, objective=objective)
        assert [
            one == pytest.approx(other, rel=1e-4)
            for one, other in zip(weights_of(tree, config, monkeypatch), expected, strict=True)
        ] == [True] * NUM_ANSWERS
        config = configure(growth=growth, objective=objective | {"mu": "softmax"})
        for weights in weights_of(tree, config, monkeypatch):
            assert weights == pytest.approx([1.0] * len(weights), rel=1e-4)


@pytest.mark.parametrize("switches", [{"tis_level": "sequence"}, {"mask_level": "geometric"}])
@pytest.mark.parametrize("cut", [{"top_p": 0.9}, {"top_k": 20}])
def test_products_over_an_answer_are_refused_where_every_token_is_cut(
    switches: dict[str, Any], cut: dict[str, Any], configure: Configure
) -> None:
    with pytest.raises(ValidationError, match=r"set objective\.mu=softmax"):
        configure(growth={"sampler": "independent"} | cut, objective=switches)
    configure(growth={"sampler": "independent"} | cut, objective=switches | {"mu": "softmax"})
    configure(growth={"sampler": "independent"}, objective=switches)
