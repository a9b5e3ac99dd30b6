"""Sliding windows: a prefix is shared where every token still sees all of it, and no result changes elsewhere."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, Gemma3TextConfig, MistralConfig, PreTrainedConfig

from services.learner.model.policy import LanguageModel
from services.learner.model.prefix_rows import Layout
from services.learner.training.packing import MicroBatch, pack
from services.learner.training.trajectories import extract_trajectories
from tests.learner.policies import CONTEXT_LENGTH, EOS_ID, VOCAB_SIZE, write_policy
from tests.learner.synthetic import V0, draws, scored, task

_SIZE: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "bos_token_id": None,
    "eos_token_id": EOS_ID,
    "pad_token_id": 0,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": CONTEXT_LENGTH,
}
WINDOW = 14


@pytest.mark.parametrize("window", [WINDOW, 32])
@pytest.mark.parametrize(
    "config",
    [
        MistralConfig(**_SIZE),
        Gemma2Config(**_SIZE, layer_types=["sliding_attention", "full_attention"]),
        Gemma3TextConfig(**_SIZE, layer_types=["sliding_attention", "full_attention"]),
    ],
    ids=lambda config: config.model_type,
)
def test_sharing_with_windows_changes_no_result(config: PreTrainedConfig, window: int, tmp_path: Path) -> None:
    config.sliding_window = window
    write_policy(tmp_path)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    model = LanguageModel.load(tmp_path, 1.0, context_length=CONTEXT_LENGTH)
    assert model.layout is not Layout.APART
    trajectories = extract_trajectories(scored(task(), draws(random.Random(1), num_branches=6)), V0)
    lengths = [len(one.prompt_ids) + len(one.token_ids) for one in trajectories]
    assert min(lengths) < WINDOW < max(lengths) < 32
    found = {}
    for layout in (Layout.APART, model.layout):
        packed = pack(trajectories, 10_000, layout, model.window)
        columns = sum(len(row.trie) for rows in packed for row in rows)
        batches = [MicroBatch.collate(rows, trajectories) for rows in packed]
        logprobs = [batch.of_answers(model.statistics(batch.rows).logprobs_RS) for batch in batches]
        torch.cat([one.flatten() for one in logprobs]).square().sum().backward()  # type: ignore[no-untyped-call]
        gradients = [one.grad.clone() for one in model.module.parameters() if one.grad is not None]
        model.module.zero_grad()
        found[layout] = columns, gradients
    (apart, expected), (shared, gradients) = found.values()
    assert shared < apart
    for one, other in zip(expected, gradients, strict=True):
        assert torch.allclose(one, other, atol=2e-5 * float(one.abs().max()))
