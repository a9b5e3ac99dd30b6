"""LoRA: what is trained, what is published, what a checkpoint keeps, and which adapters are refused."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from services.learner.config import AdapterConfig, OptimizerConfig, Precision
from services.learner.model.adapters import Adapters
from services.learner.model.memory import checkpoint_activations
from services.learner.model.policy import LanguageModel, Policy
from services.learner.model.prefix_rows import PrefixRows
from services.learner.model.process_group import ProcessGroup
from shared.errors import InvalidInput
from tests.learner.policies import write_policy
from tests.learner.synthetic import trie_of

ROWS = [[3, 4, 5, 6, 7, 8], [9, 10, 11]]
IDS = PrefixRows.collate([trie_of(row) for row in ROWS])
BFLOAT16 = ProcessGroup(torch.device("cpu"), Precision.BFLOAT16)


def lora_policy(base: Path, group: ProcessGroup | None = None, saved: Path | None = None, **changes: Any) -> Policy:
    """A policy with adapters of rank 4."""
    config = AdapterConfig.model_validate({"rank": 4, "alpha": 8} | changes)
    adapters = Adapters(config, base, seed=7, saved=saved)
    return Policy(base, 1.0, OptimizerConfig(lr=0.1), *([group] if group else []), adapters=adapters)


def train(policy: Policy, steps: int = 2) -> None:
    for _ in range(steps):
        policy.model.statistics(IDS).logprobs_RS.sum().backward()
        assert policy.apply_gradients(0.05)


def logprobs(model: LanguageModel) -> torch.Tensor:
    with torch.no_grad():
        return model.statistics(IDS).logprobs_RS


@pytest.mark.parametrize("architecture", ["qwen3", "llama", "gpt2"])
def test_only_adapters_are_trained(architecture: str, tmp_path: Path) -> None:
    policy = lora_policy(write_policy(tmp_path, architecture))
    before = {name: tensor.clone() for name, tensor in policy.model.module.named_parameters()}
    train(policy)
    changed = {name for name, now in policy.model.module.named_parameters() if not torch.equal(before[name], now)}
    assert changed == {name for name in before if ".lora_" in name}
    assert {name.rpartition(".")[0] for name in policy.copy().moments} == changed


def test_the_first_policy_is_the_model(policy_dir: Path) -> None:
    assert torch.equal(logprobs(lora_policy(policy_dir).model), logprobs(LanguageModel.load(policy_dir, 1.0)))


def test_the_reference_is_the_model_without_its_adapters(policy_dir: Path) -> None:
    policy = lora_policy(policy_dir)
    train(policy)
    reference, separate = policy.model.without_adapters(), LanguageModel.load(policy_dir, 1.0, is_frozen=True)
    assert torch.equal(logprobs(reference), logprobs(separate))
    assert not torch.allclose(logprobs(policy.model), logprobs(separate))
    train(policy, 1)  # they are trained as before


def adapter_gradients(policy: Policy, sequences: list[list[list[int]]]) -> list[torch.Tensor]:
    """Of the log-probabilities of sequences, which share rows as given."""
    tries = [trie_of(*row) for row in sequences]
    for _ in range(2):  # the second time B is no longer 0, so that A has a gradient
        policy.model.statistics(PrefixRows.collate(tries)).logprobs_RS.square().sum().backward()
        found = [one.grad.clone() for one in policy.model.module.parameters() if one.grad is not None]
        policy.apply_gradients(0.05)
    return found


def test_layers_that_are_computed_again_give_adapters_the_same_gradients(policy_dir: Path) -> None:
    plain, checkpointed = lora_policy(policy_dir), lora_policy(policy_dir)
    checkpoint_activations(checkpointed.model.module)
    expected, found = (adapter_gradients(one, [ROWS]) for one in (plain, checkpointed))
    assert len(found) == len(expected) == 28
    assert all(map(torch.equal, found, expected))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft reads it
@pytest.mark.parametrize("architecture", ["qwen3", "llama", "gpt2"])
def test_merged_weights_are_those_of_peft(architecture: str, tmp_path: Path) -> None:
    base = write_policy(tmp_path / "base", architecture)
    policy = lora_policy(base)
    train(policy)
    before = {name: tensor.clone() for name, tensor in policy.model.module.state_dict().items()}
    policy.write(tmp_path / "merged", policy.weights())
    assert all(torch.equal(before[name], now) for name, now in policy.model.module.state_dict().items())
    policy.write_adapters(tmp_path / "adapter", policy.adapter_weights())
    of_peft = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "adapter")
    expected = of_peft.merge_and_unload().state_dict()
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").state_dict()
    assert merged.keys() == expected.keys()
    for name, tensor in merged.items():
        assert torch.allclose(tensor, expected[name], atol=1e-6), name
    assert torch.allclose(logprobs(LanguageModel.load(tmp_path / "merged", 1.0)), logprobs(policy.model), atol=1e-5)


def test_in_bfloat16_the_model_is_frozen_in_it_and_adapters_are_float32(policy_dir: Path) -> None:
    policy = lora_policy(policy_dir, BFLOAT16)
    train(policy)
    dtypes = {(".lora_" in name, tensor.dtype) for name, tensor in policy.model.module.named_parameters()}
    assert dtypes == {(True, torch.float32), (False, torch.bfloat16)}
    exact = lora_policy(policy_dir)
    assert torch.allclose(logprobs(policy.model.without_adapters()), logprobs(exact.model), atol=0.1)


def test_training_goes_on_from_a_checkpoint_as_if_it_had_never_stopped(policy_dir: Path, tmp_path: Path) -> None:
    policy = lora_policy(policy_dir)
    train(policy)
    policy.write_kept(policy.copy(), tmp_path)
    resumed = lora_policy(policy_dir, saved=tmp_path / "policy")
    resumed.restore(tmp_path / "optimizer")
    train(policy)
    train(resumed)
    ours, theirs = policy.weights(), resumed.weights()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert not (tmp_path / "policy" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rank": 8}, "adapters of rank 4, and learner.lora.rank is 8: give lora.rank=4"),
        ({"alpha": 16}, "adapters of alpha 8, and learner.lora.alpha is 16: give lora.alpha=8"),
        ({"target_modules": ["q_proj"]}, "has adapters on other layers than learner.lora.target_modules=[q_proj]"),
    ],
)
def test_adapters_of_another_shape_are_refused(
    changes: dict[str, Any], said: str, policy_dir: Path, tmp_path: Path
) -> None:
    lora_policy(policy_dir).save(tmp_path)
    with pytest.raises(InvalidInput, match=re.escape(said)):
        lora_policy(policy_dir, saved=tmp_path, **changes)


def test_adapters_of_another_model_are_refused(policy_dir: Path, tmp_path: Path) -> None:
    lora_policy(write_policy(tmp_path / "llama", "llama", hidden_size=48)).save(tmp_path / "saved")
    with pytest.raises(InvalidInput, match="it was trained on another model"):
        lora_policy(policy_dir, saved=tmp_path / "saved")


@pytest.mark.parametrize(
    ("target", "said"),
    [("key", "'key' is no linear layer of llama; it has down_proj, gate_proj"), ("lm_head", "is the head")],
)
def test_layers_that_take_no_adapter_are_refused(target: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=said):
        lora_policy(write_policy(tmp_path, "llama"), target_modules=[target])
