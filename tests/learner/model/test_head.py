"""The head in chunks gives the log-probabilities, entropies and gradients of the whole logits tensor."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from services.learner.model.head import Head, entropies
from services.learner.model.policy import LanguageModel
from services.learner.model.prefix_rows import PrefixRows
from tests.learner.synthetic import trie_of

NUM_PLACES, NUM_HIDDEN, VOCAB_SIZE = 13, 8, 37

HEADS = {
    "plain": Head(1.0, None, 1.0),
    "temperature": Head(1.0, None, 0.7),
    "scaled": Head(0.25, None, 1.3),
    "capped": Head(1.0, 2.0, 0.7),
}


def of_whole_logits(head: Head, hidden_ND: Tensor, layer: nn.Linear, token_ids_N: Tensor) -> tuple[Tensor, Tensor]:
    logits_NV = head.scale * layer(hidden_ND)
    if head.cap:
        logits_NV = head.cap * torch.tanh(logits_NV / head.cap)
    logits_NV = logits_NV / head.temperature
    logprobs_NV = logits_NV.log_softmax(-1)
    return logprobs_NV.gather(1, token_ids_N[:, None])[:, 0], entropies(logits_NV, logits_NV.logsumexp(-1))


@pytest.mark.parametrize("num_at_once", [1, 5, 100])
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_chunks_and_whole_logits_agree(head: Head, has_bias: bool, num_at_once: int) -> None:
    torch.manual_seed(3)
    hidden_ND = (2 * torch.randn(NUM_PLACES, NUM_HIDDEN)).requires_grad_()
    layer = nn.Linear(NUM_HIDDEN, VOCAB_SIZE, bias=has_bias)
    token_ids_N = torch.randint(VOCAB_SIZE, (NUM_PLACES,))
    of_logprobs_N, of_entropies_N = torch.randn(2, NUM_PLACES)
    of_logprobs_N[::3] = 0  # places that ask for nothing, or for the entropy alone
    of_entropies_N[::2] = 0
    wanted = [hidden_ND, *layer.parameters()]

    found = head.statistics(hidden_ND, layer, token_ids_N, 4 * VOCAB_SIZE * num_at_once)
    expected = of_whole_logits(head, hidden_ND, layer, token_ids_N)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    for coefficients in ((of_logprobs_N, of_entropies_N), (of_logprobs_N, None), (None, of_entropies_N)):
        gradients = [
            torch.autograd.grad(
                sum((c * s).sum() for c, s in zip(coefficients, statistics, strict=True) if c is not None),
                wanted,
                retain_graph=True,
            )
            for statistics in (found, expected)
        ]
        for one, other in zip(*gradients, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6 * float(other.abs().max()))


def test_autocast_computes_in_its_dtype_and_sums_in_float32() -> None:
    torch.manual_seed(3)
    layer = nn.Linear(NUM_HIDDEN, VOCAB_SIZE, bias=False)
    hidden_ND, token_ids_N = torch.randn(NUM_PLACES, NUM_HIDDEN), torch.arange(NUM_PLACES)
    with torch.autocast("cpu", torch.bfloat16):
        logprobs_N, entropies_N = HEADS["plain"].statistics(hidden_ND, layer, token_ids_N)
    expected = of_whole_logits(HEADS["plain"], hidden_ND, layer, token_ids_N)
    assert logprobs_N.dtype == entropies_N.dtype == torch.float32
    assert 0 < (logprobs_N - expected[0]).abs().max() < 0.03
    logprobs_N.sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.dtype == torch.float32


ARCHITECTURES: dict[str, dict[str, Any]] = {
    "gemma2": {"final_logit_softcapping": 0.2, "head_dim": 8},
    "cohere": {"logit_scale": 0.25},
    "granite": {"logits_scaling": 3.0},
    "phi": {},  # its head has a bias
    "gpt_neox": {},
    "opt": {"ffn_dim": 32, "word_embed_proj_dim": 8},
    "minicpm3": {},
    "doge": {},
}
_SIZE = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architectures_own_head_is_met(architecture: str, tmp_path: Path) -> None:
    torch.manual_seed(3)
    config = AutoConfig.for_model(architecture, **_SIZE | ARCHITECTURES[architecture])
    plain = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in plain.parameters():
            parameter.mul_(8)
    plain.save_pretrained(tmp_path)
    ids = [3, 9, 4, 30, 12, 7]
    logprobs_RS = LanguageModel.load(tmp_path, 0.7).statistics(PrefixRows.collate([trie_of(ids)])).logprobs_RS
    with torch.no_grad():
        logprobs_SV = (plain(torch.tensor([ids])).logits[0] / 0.7).log_softmax(-1)
    expected = logprobs_SV[:-1].gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
    torch.testing.assert_close(logprobs_RS[0, 1:], expected, rtol=1e-4, atol=1e-5)


def test_in_bfloat16_many_chunks_lose_nothing_of_the_weights_gradient() -> None:
    torch.manual_seed(4)
    layer = nn.Linear(NUM_HIDDEN, VOCAB_SIZE, bias=False)
    hidden_ND, token_ids_N = torch.randn(400, NUM_HIDDEN), torch.randint(VOCAB_SIZE, (400,))

    def gradient(num_at_once: int, dtype: torch.dtype) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
            logprobs_N, _ = HEADS["plain"].statistics(hidden_ND, layer, token_ids_N, 4 * VOCAB_SIZE * num_at_once)
        return torch.autograd.grad(logprobs_N.sum(), layer.weight)[0]

    exact = gradient(400, torch.float32)
    errors = [float((gradient(size, torch.bfloat16) - exact).norm() / exact.norm()) for size in (400, 4)]
    assert errors[1] < 1.5 * errors[0]
