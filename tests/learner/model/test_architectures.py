"""Each architecture: read, tried, trained a step, written; gradients of shared prefixes are those of separate rows."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig

from services.learner.config import AdapterConfig
from services.learner.model.adapters import Adapters
from services.learner.model.policy import LanguageModel, Policy
from services.learner.model.prefix_rows import Layout
from services.learner.training.packing import MicroBatch, pack
from services.learner.training.trainer import Trainer
from services.learner.training.trajectories import extract_trajectories
from tests.learner.conftest import Configure
from tests.learner.model.architectures import QUICK, SLOW
from tests.learner.model.test_fitness import write_architecture
from tests.learner.synthetic import V0, V1, build_all, draws, scored, task

ALL = [
    *(pytest.param(config, id=name) for name, config in QUICK.items()),
    *(pytest.param(config, id=name, marks=pytest.mark.slow) for name, config in SLOW.items()),
]
TREE = scored(task(prompt_ids=(3, 4, 5, 6)), draws(random.Random(2), rewards=(1.0, 0.0), max_tokens=12))


def gradients(model: LanguageModel, layout: Layout, micro_batch_tokens: int) -> dict[str, Tensor]:
    """Of the log-probabilities and entropies of a tree's answers."""
    model.module.zero_grad()
    trajectories = extract_trajectories(TREE, V0)
    for rows in pack(trajectories, micro_batch_tokens, layout, model.window):
        batch = MicroBatch.collate(rows, trajectories)
        statistics = model.statistics(batch.rows)
        answers = batch.of_answers(statistics.logprobs_RS), batch.of_answers(statistics.entropies_RS)
        (answers[0].sum() + 0.1 * answers[1].sum()).backward()
    return {name: p.grad.clone() for name, p in model.module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("config", ALL)
def test_every_architecture_is_trained_as_it_is(config: PreTrainedConfig, configure: Configure, tmp_path: Path) -> None:
    directory = write_architecture(tmp_path / "model", config)
    settings = configure(model=directory, context_length=64, objective={"kl_coef": 0.1})
    policy = Policy(directory, 1.0, settings.optimizer, context_length=64)
    reference = LanguageModel.load(directory, 1.0, is_frozen=True, context_length=64)
    before = {name: tensor.clone() for name, tensor in policy.model.module.state_dict().items()}

    update = Trainer(policy, reference, settings).step(build_all([TREE]), V1, 1e-3, "")
    assert update.applied == 1
    assert update.kl == pytest.approx(0.0, abs=1e-6)
    after = policy.model.module.state_dict()
    assert any(not torch.equal(before[name], tensor) for name, tensor in after.items())

    policy.save(tmp_path / "saved")
    read_again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved").state_dict()
    assert read_again.keys() == after.keys()
    assert all(torch.equal(read_again[name], tensor) for name, tensor in after.items())


@pytest.mark.parametrize("config", ALL)
def test_every_architecture_takes_adapters(config: PreTrainedConfig, configure: Configure, tmp_path: Path) -> None:
    directory = write_architecture(tmp_path / "model", config)
    settings = configure(model=directory, context_length=64)
    adapters = Adapters(AdapterConfig(rank=2), directory)
    policy = Policy(directory, 1.0, settings.optimizer, context_length=64, adapters=adapters)
    trainer = Trainer(policy, policy.model.without_adapters(), settings)
    for _ in range(2):
        assert trainer.step(build_all([TREE]), V1, 1e-2, "").applied == 1
    policy.write(tmp_path / "merged", policy.weights())
    merged = LanguageModel.load(tmp_path / "merged", 1.0, context_length=64)
    ids = torch.tensor([[3, 4, 5, 6, 7, 8]])
    with torch.no_grad():
        expected = policy.model.module(input_ids=ids).logits
        assert torch.allclose(merged.module(input_ids=ids).logits, expected, atol=1e-5)
        assert not torch.allclose(expected, LanguageModel.load(directory, 1.0).module(input_ids=ids).logits, atol=1e-5)


@pytest.fixture
def widen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Architectures round norms, routers and rotations to float32, whatever the weights are; from now on to float64."""

    def wide(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            arguments = tuple(torch.float64 if one is torch.float32 else one for one in arguments)
            named = {name: torch.float64 if one is torch.float32 else one for name, one in named.items()}
            return function(*arguments, **named)

        return call

    monkeypatch.setattr(Tensor, "to", wide(Tensor.to))
    monkeypatch.setattr(Tensor, "float", Tensor.double)
    monkeypatch.setattr(torch.nn.functional, "softmax", wide(torch.nn.functional.softmax))


@pytest.mark.parametrize("config", ALL)
def test_gradients_of_shared_prefixes_are_those_of_separate_rows(
    config: PreTrainedConfig, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    model = LanguageModel.load(write_architecture(tmp_path, config), 1.0, context_length=64)
    request.getfixturevalue("widen")
    model.module.double().set_experts_implementation("eager")  # the other one knows no float64
    assert not model.sharing_fault
    apart = gradients(model, Layout.APART, 1)
    largest = max(float(gradient.abs().max()) for gradient in apart.values())
    for budget in (10_000, 40):
        shared = gradients(model, model.layout, budget)
        assert shared.keys() == apart.keys()
        assert all(float((shared[name] - apart[name]).abs().max()) <= 1e-10 * largest for name in apart)


def test_of_a_composite_the_language_model_is_trained_and_written(tmp_path: Path) -> None:
    directory = write_architecture(tmp_path / "model", QUICK["gemma3, composite"])
    whole = AutoModelForCausalLM.from_pretrained(directory).eval()
    model = LanguageModel.load(directory, 1.0)
    ids = torch.tensor([[3, 4, 5, 6, 7, 8]])
    with torch.no_grad():
        assert torch.equal(model.module(input_ids=ids).logits, whole(input_ids=ids).logits)
    model.module.save_pretrained(tmp_path / "saved")
    assert AutoConfig.from_pretrained(tmp_path / "saved").model_type == "gemma3_text"
