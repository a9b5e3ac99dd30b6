"""Models beyond the three families: what is served, what is bounded, what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma2Config,
    Gemma3TextConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    MixtralConfig,
    Olmo2Config,
    OPTConfig,
    Phi3Config,
    PhiConfig,
    PreTrainedConfig,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
)
from transformers.utils import logging as transformers_logging

from services.rollout.engines.embedded.attention import ATTENTION_NAME
from services.rollout.engines.embedded.forward import EagerPass, trace
from services.rollout.engines.embedded.half import should_halve
from services.rollout.engines.embedded.kv import RowKV
from services.rollout.engines.embedded.model import PolicyModel, load_model
from shared.errors import InvalidInput

SIZES: dict[str, Any] = {
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
TIED = LlamaConfig(**SIZES, tie_word_embeddings=True)
MANY_HEADS = SIZES | {"num_key_value_heads": 2}
SERVED = [
    TIED,
    Qwen3MoeConfig(**SIZES, head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=8),
    OPTConfig(
        vocab_size=30, hidden_size=16, ffn_dim=24, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=48, word_embed_proj_dim=16,
    ),
]  # fmt: skip
SERVED_TOO = [
    MixtralConfig(**SIZES, num_local_experts=4),
    Qwen2Config(**SIZES),
    Qwen3Config(**SIZES, head_dim=8),
    MistralConfig(**SIZES, sliding_window=None),
    Gemma3TextConfig(**SIZES, head_dim=8),
    PhiConfig(**MANY_HEADS),
    Phi3Config(**SIZES),
    Olmo2Config(**SIZES),
]


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
    """Over rows of different lengths, each with some tokens prefilled and the rest decoded, and then scored at once."""
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
    lengths = [3, 5, 2]
    scored = policy.score(rows, 0, lengths, [ids[length:] for ids, length in zip(sequences, lengths, strict=True)])
    for ids, length, logits_NV in zip(sequences, lengths, scored, strict=True):
        with torch.no_grad():
            expected_NV = plain(torch.tensor([ids])).logits[0, length:]
        worst = max(worst, float((logits_NV - expected_NV).abs().max()))
    return worst


@pytest.mark.parametrize(
    "config",
    [*SERVED, *(pytest.param(config, marks=pytest.mark.slow, id=config.model_type) for config in SERVED_TOO)],
    ids=lambda config: config.model_type,
)
def test_other_models_are_served_and_traced(config: PreTrainedConfig, tmp_path: Path) -> None:
    policy = load_model(bundle(config, tmp_path), None)
    policy.trace()
    assert policy.is_traced
    assert largest_difference(policy, AutoModelForCausalLM.from_pretrained(tmp_path).eval()) < 1e-4


class ValueDependent(torch.nn.Module):
    """A model that looks at its input in Python."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, input_ids: torch.Tensor, **more: Any) -> Any:
        return self.inner(input_ids=input_ids + int(input_ids.max() > 5), **more)


def test_a_model_that_cannot_be_traced_is_served_as_it_is(tmp_path: Path) -> None:
    policy = load_model(bundle(LlamaConfig(**SIZES), tmp_path), None)
    model = ValueDependent(AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation=ATTENTION_NAME))
    eager = EagerPass(model, policy.kv_shape)
    assert trace(eager, policy.kv_shape) is eager


@pytest.mark.parametrize("config", [TIED, PhiConfig(**MANY_HEADS)], ids=lambda one: one.model_type)
def test_products_in_bfloat16_are_those_of_float32_but_for_rounding(config: PreTrainedConfig, tmp_path: Path) -> None:
    policy = load_model(bundle(config, tmp_path), None, halve=True)
    policy.trace()
    assert policy.is_traced
    assert 0 < largest_difference(policy, AutoModelForCausalLM.from_pretrained(tmp_path).eval()) < 0.1


@pytest.mark.parametrize(("halve", "dtype"), [(True, torch.float32), (False, torch.float32), (None, torch.bfloat16)])
def test_new_weights_are_multiplied_as_they_are_loaded(halve: bool | None, dtype: torch.dtype, tmp_path: Path) -> None:
    """Whether both round alike, or a later version comes in another precision."""
    served = load_model(bundle(TIED, tmp_path / "first"), None, halve=True)
    model = AutoModelForCausalLM.from_pretrained(bundle(TIED, tmp_path / "next"))
    for weight in model.parameters():
        weight.data.mul_(1.1)
    model.to(dtype).save_pretrained(tmp_path / "next")
    new = load_model(tmp_path / "next", None, halve=halve)
    served.check_successor(new)
    assert largest_difference(served.adopt(new), model.float().eval()) < 0.3


def test_only_weights_in_bfloat16_are_halved_by_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle(TIED, tmp_path)
    capabilities = {"amx_bf16": True}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert not should_halve(tmp_path)
    AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16).save_pretrained(tmp_path)
    assert should_halve(tmp_path)
    capabilities["amx_bf16"] = False
    assert not should_halve(tmp_path)


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
