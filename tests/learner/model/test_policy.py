"""The policy: log-probabilities as METHOD defines them, its layout on disk, and what it refuses."""

import os
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from services.learner.config import OptimizerConfig
from services.learner.model.policy import LanguageModel, Policy
from services.learner.model.prefix_rows import PrefixRows
from shared.errors import InvalidInput
from tests.learner.conftest import Configure
from tests.learner.policies import VOCAB_SIZE, write_policy
from tests.learner.synthetic import trie_of

ROWS = [[3, 4, 5, 6, 7, 8], [9, 10, 11]]


IDS = PrefixRows.collate([trie_of(row) for row in ROWS])


@pytest.mark.parametrize("architecture", ["qwen3", "llama", "gpt2"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_are_of_the_scaled_full_softmax(architecture: str, temperature: float, tmp_path: Path) -> None:
    directory = write_policy(tmp_path, architecture)
    statistics = LanguageModel.load(directory, temperature).statistics(IDS)
    plain = AutoModelForCausalLM.from_pretrained(directory).eval()
    for number, row in enumerate(ROWS):
        with torch.no_grad():
            logits = plain(torch.tensor([row])).logits[0]
        expected = [torch.log_softmax(logits[at - 1] / temperature, -1)[row[at]].item() for at in range(1, len(row))]
        assert statistics.logprobs_RS[number, 1 : len(row)].tolist() == pytest.approx(expected, abs=1e-5)
        distribution = torch.softmax(logits[0] / temperature, -1)
        entropy = -(distribution * distribution.log()).sum().item()
        assert statistics.entropies_RS[number, 1].item() == pytest.approx(entropy, abs=1e-5)


def test_padding_changes_nothing(policy_dir: Path) -> None:
    model = LanguageModel.load(policy_dir, 1.0)
    alone = model.statistics(PrefixRows.collate([trie_of(ROWS[1])])).logprobs_RS
    assert torch.allclose(model.statistics(IDS).logprobs_RS[1:, :3], alone, atol=1e-6)


def test_a_saved_policy_is_what_transformers_loads(policy_dir: Path, tmp_path: Path) -> None:
    policy = Policy(policy_dir, 1.0, OptimizerConfig(lr=0.1))
    policy.model.statistics(IDS).logprobs_RS.sum().backward()
    policy.apply_gradients(0.1)
    policy.save(tmp_path / "saved")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    for name, tensor in policy.model.module.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name])
    assert AutoTokenizer.from_pretrained(tmp_path / "saved")("w0 w1")["input_ids"] == [3, 4]
    assert all(path.is_file() for path in (tmp_path / "saved").iterdir())


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_changes_nothing(policy_dir: Path, poison: float) -> None:
    policy = Policy(policy_dir, 1.0, OptimizerConfig(weight_decay=0.1))
    before = {name: tensor.clone() for name, tensor in policy.model.module.state_dict().items()}
    (policy.model.statistics(IDS).logprobs_RS.sum() * poison).backward()
    assert policy.apply_gradients(0.1) is None
    assert all(torch.equal(before[name], now) for name, now in policy.model.module.state_dict().items())
    (policy.model.statistics(IDS).logprobs_RS.sum()).backward()
    norm = policy.apply_gradients(0.1)
    assert norm is not None
    assert norm > 0


def test_vectors_do_not_decay(policy_dir: Path) -> None:
    policy = Policy(policy_dir, 1.0, OptimizerConfig(weight_decay=0.5))
    module = policy.model.module
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    before = {name: tensor.clone() for name, tensor in module.named_parameters()}
    policy.apply_gradients(0.1)
    for name, tensor in module.named_parameters():
        expected = before[name] * (0.95 if tensor.dim() >= 2 else 1.0)
        assert torch.allclose(tensor, expected), name


def test_weights_with_nan_are_refused_by_name(policy_dir: Path, tmp_path: Path) -> None:
    policy = Policy(policy_dir, 1.0, OptimizerConfig())
    with torch.no_grad():
        next(iter(policy.model.module.parameters()))[0, 0] = float("nan")
    policy.save(tmp_path / "bad")
    with pytest.raises(InvalidInput, match=r"embed_tokens.*NaN"):
        LanguageModel.load(tmp_path / "bad", 1.0)


def test_a_directory_without_a_policy_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="transformers cannot read this policy"):
        LanguageModel.load(tmp_path, 1.0)


def test_the_reference_stays_as_it_was(policy_dir: Path) -> None:
    policy = Policy(policy_dir, 1.0, OptimizerConfig())
    reference = LanguageModel.load(policy_dir, 1.0, is_frozen=True)
    before = reference.statistics(IDS).logprobs_RS
    policy.model.statistics(IDS).logprobs_RS.sum().backward()
    policy.apply_gradients(0.5)
    assert torch.equal(reference.statistics(IDS).logprobs_RS, before)
    assert not torch.equal(policy.model.statistics(IDS).logprobs_RS, before)
    assert policy.model.vocab_size == VOCAB_SIZE


def test_a_policy_goes_on_from_its_optimizer_state(configure: Configure, tmp_path: Path) -> None:
    def trained(policy: Policy, steps: int) -> Policy:
        for _ in range(steps):
            policy.model.statistics(IDS).logprobs_RS.sum().backward()
            policy.apply_gradients(0.01)
        return policy

    config = configure()
    whole = trained(Policy(config.model, 1.0, config.optimizer), 4)
    half = trained(Policy(config.model, 1.0, config.optimizer), 2)
    kept = half.copy()
    trained(half, 1)  # leaves the copy as it is
    half.write_kept(kept, tmp_path)
    resumed = Policy(tmp_path / "policy", 1.0, config.optimizer)
    resumed.restore(tmp_path / "optimizer")
    trained(resumed, 2)
    for name, tensor in whole.model.module.state_dict().items():
        assert torch.equal(tensor, resumed.model.module.state_dict()[name]), name


def test_a_copy_may_take_the_memory_of_one_that_nobody_needs_any_more(configure: Configure) -> None:
    config = configure()
    policy = Policy(config.model, 1.0, config.optimizer)
    spent = policy.weights(torch.bfloat16)
    policy.model.statistics(IDS).logprobs_RS.sum().backward()
    policy.apply_gradients(0.5)
    again = policy.weights(torch.bfloat16, into=spent)
    assert all(tensor is spent[name] for name, tensor in again.items())
    fresh = policy.weights(torch.bfloat16, into=policy.weights(torch.float32))
    assert all(torch.equal(tensor, fresh[name]) for name, tensor in again.items())


def test_a_copy_before_the_first_update_has_no_moments_and_changes_nothing(
    configure: Configure, tmp_path: Path
) -> None:
    config = configure()
    asked, left = (Policy(config.model, 1.0, config.optimizer) for _ in range(2))
    kept = asked.copy()
    assert kept.moments == {}
    asked.write_kept(kept, tmp_path)
    asked.restore(tmp_path / "optimizer")
    for policy in (asked, left):
        policy.model.statistics(IDS).logprobs_RS.sum().backward()
        policy.apply_gradients(0.01)
    for name, tensor in left.model.module.state_dict().items():
        assert torch.equal(tensor, asked.model.module.state_dict()[name]), name


def test_every_file_of_a_policy_has_the_permissions_of_the_umask(policy_dir: Path, tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        Policy(policy_dir, 1.0, OptimizerConfig()).save(tmp_path / "saved")
    finally:
        os.umask(before)
    assert {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "saved").iterdir()} == {
        path.name: 0o644 for path in (tmp_path / "saved").iterdir()
    }
