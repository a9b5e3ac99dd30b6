"""Models beyond the three families: what is served, what is bounded, what is refused."""

from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma2Config,
    MambaConfig,
    MistralConfig,
    OPTConfig,
    PreTrainedConfig,
    Qwen3MoeConfig,
)
from transformers.utils import logging as transformers_logging

from services.rollout.engines.embedded.kv import RowKV
from services.rollout.engines.embedded.model import PolicyModel, load_model
from shared.errors import InvalidInput

SIZES = {
    "vocab_size": 30,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 48,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
MOE = Qwen3MoeConfig(**SIZES, head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=8)
OPT = OPTConfig(
    vocab_size=30, hidden_size=16, ffn_dim=24, num_hidden_layers=2, num_attention_heads=2,
    max_position_embeddings=48, word_embed_proj_dim=16,
)  # fmt: skip


def bundle(config: PreTrainedConfig, directory: Path) -> Path:
    torch.manual_seed(0)
    transformers_logging.set_verbosity_error()
    model = AutoModelForCausalLM.from_config(config)
    for weight in model.parameters():
        if weight.ndim > 1:
            weight.data.normal_(0.0, 0.3)
    model.save_pretrained(directory)
    return directory


def largest_difference(policy: PolicyModel, plain: torch.nn.Module) -> float:
    """Over rows of different lengths, each with some tokens prefilled and the rest decoded."""
    rows, worst = RowKV(policy.kv_shape, 3), 0.0
    sequences = torch.randint(3, 30, (3, 12), generator=torch.Generator().manual_seed(1)).tolist()
    policy.prefill(rows, 0, [0, 0, 0], [ids[:length] for ids, length in zip(sequences, (3, 5, 2), strict=True)])
    lengths = [3, 5, 2]
    for _ in range(7):
        tokens = [ids[length] for ids, length in zip(sequences, lengths, strict=True)]
        logits_BV = policy.decode(rows, tokens, lengths)
        lengths = [length + 1 for length in lengths]
        for ids, length, logits_V in zip(sequences, lengths, logits_BV, strict=True):
            with torch.no_grad():
                expected_V = plain(torch.tensor([ids[:length]])).logits[0, -1]
            worst = max(worst, float((logits_V - expected_V).abs().max()))
    return worst


@pytest.mark.parametrize(("config", "is_traced"), [(MOE, True), (OPT, False)], ids=["experts", "untraceable"])
def test_other_models_are_served_traced_or_as_they_are(
    config: PreTrainedConfig, is_traced: bool, tmp_path: Path
) -> None:
    policy = load_model(bundle(config, tmp_path), None)
    policy.trace()
    assert policy.is_traced == is_traced
    assert largest_difference(policy, AutoModelForCausalLM.from_pretrained(tmp_path).eval()) < 1e-4


def test_a_context_ends_with_the_attention_window(tmp_path: Path) -> None:
    policy = load_model(bundle(MistralConfig(**SIZES, sliding_window=20), tmp_path), None)
    assert policy.limits.context_length == 20


@pytest.mark.parametrize(
    ("config", "named"),
    [
        (Gemma2Config(**SIZES, head_dim=8), "softcap"),
        (MambaConfig(vocab_size=30, hidden_size=16, num_hidden_layers=2), "context"),
        (
            BloomConfig(vocab_size=30, hidden_size=16, n_layer=2, n_head=2, sliding_window=32),
            "attention of the same size",
        ),
    ],
    ids=["capped scores", "no attention", "biased scores"],
)
def test_a_model_without_plain_attention_is_refused(config: PreTrainedConfig, named: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=named):
        load_model(bundle(config, tmp_path), None)
