"""The memory of training: what is estimated from a configuration, against what training takes."""

import random
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig

from services.learner.config import AdapterConfig, LearnerConfig
from services.learner.model.adapters import Adapters, is_adapter
from services.learner.model.memory import peak_memory_bytes, release_memory, reset_peak_memory
from services.learner.model.memory_estimate import ModelSize, TrainingMemory, most_columns
from services.learner.model.policy import LanguageModel, Policy
from services.learner.training.packing import default_budget
from services.learner.training.trainer import Trainer
from shared.protocol.tree import ScoredTree
from shared.tree.draw import Draw, Finish, VersionSpan
from tests.learner.policies import CONTEXT_LENGTH, write_policy
from tests.learner.synthetic import V0, V1, build_all, credited_trajectories, scored, task

CPU = torch.device("cpu")
BAND = (0.65, 1.2)
"""Of the measured peak, which holds code that is loaded and what allocators keep."""


def config_of(model: Path, **changes: object) -> LearnerConfig:
    growth = {"sampler": {"kind": "independent", "initial_draws": 8}, "max_tokens": 236}
    settings = {"growth": growth, "batch_size": 1, "advantage": "grpo", "objective": {"kl_coef": 0.0}} | changes
    return LearnerConfig.model_validate({"model": model, "data": ("x",), "total_steps": 1, **settings})


def tree(length: int) -> ScoredTree:
    """Eight answers that share nothing."""
    rng = random.Random(0)
    draws = tuple(
        Draw(None, 0, tuple(rng.randrange(2, 20) for _ in range(length)), (-1.0,) * length, (length,),
             (VersionSpan(V0, 0, length),), Finish.STOP, float(number % 2))
        for number in range(8)
    )  # fmt: skip
    return scored(task(0, prompt_ids=[3] * 20), draws)


def test_a_step_takes_what_is_estimated(tmp_path: Path) -> None:
    wide = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 6, "max_position_embeddings": 512}
    config = config_of(write_policy(tmp_path, **wide))
    expected = TrainingMemory.of(ModelSize.of(AutoConfig.from_pretrained(tmp_path)), config, most_columns(config, 256))
    policy = Policy(tmp_path, 1.0, config.optimizer)
    trainer = Trainer(policy, None, config)
    trainer.step(build_all([tree(8)]), V1, 1e-3, "seed")  # what is loaded with the first step is none of the model's
    release_memory(CPU)
    reset_peak_memory(CPU)
    before = peak_memory_bytes(CPU)
    trainer.step(build_all([tree(236)]), V1, 1e-3, "seed")
    measured = peak_memory_bytes(CPU) - before
    estimated = expected.activations + expected.head + expected.gradients
    assert BAND[0] < estimated / measured < BAND[1], (estimated, measured)


def test_the_columns_of_a_pass_are_those_of_the_packing(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    trajectories = credited_trajectories(1)
    longest = max(len(one.prompt_ids) + len(one.token_ids) for one in trajectories)
    assert most_columns(config.model_copy(update={"batch_size": 10_000}), longest) == default_budget(trajectories)
    assert most_columns(config, 10) == 80, "a step of one tree of eight answers has no more"
    small = config_of(tmp_path, objective={"micro_batch_tokens": 100})
    assert (most_columns(small, 50), most_columns(small, 300)) == (100, 300)


@pytest.mark.parametrize("targets", [("all-linear",), ("q_proj", "v_proj")])
def test_adapters_are_counted_as_peft_makes_them(tmp_path: Path, targets: tuple[str, ...]) -> None:
    write_policy(tmp_path)
    lora = AdapterConfig(rank=4, target_modules=targets)
    size = ModelSize.of(AutoConfig.from_pretrained(tmp_path), lora)
    module = LanguageModel.load(tmp_path, 1.0, adapters=Adapters(lora, tmp_path)).module
    adapters = [one.numel() for name, one in module.named_parameters() if is_adapter(name)]
    assert (size.num_trained, size.num_parameters) == (
        sum(adapters),
        sum(one.numel() for one in module.parameters()) - sum(adapters),
    )


def test_each_setting_that_saves_memory_is_counted(tmp_path: Path) -> None:
    size = ModelSize.of(AutoConfig.from_pretrained(write_policy(tmp_path)))

    def memory(**changes: object) -> TrainingMemory:
        return TrainingMemory.of(size, config_of(tmp_path, **changes), CONTEXT_LENGTH)

    plain = memory()
    assert plain.lasting == 16 * size.num_parameters
    assert plain.copies == 12 * size.num_parameters + 2 * 4 * size.num_parameters
    assert memory(precision="bfloat16").copies == 12 * size.num_parameters + 2 * 2 * size.num_parameters
    assert memory(activation_checkpointing=True).activations < plain.activations
    assert memory(precision="bfloat16").activations < plain.activations
    assert memory(objective={"kl_coef": 0.1}).reference == 4 * size.num_parameters
    assert memory(objective={"kl_coef": 0.1}, reference={"precision": "bfloat16"}).reference == 2 * size.num_parameters
    assert memory(objective={"kl_coef": 0.1}, reference={"offload": True}).reference == 0
    assert memory(lora={"rank": 2}, precision="bfloat16").weights == 2 * size.num_parameters + 4 * size.num_parameters


def test_a_large_model_is_sized_without_its_weights() -> None:
    from transformers import Qwen3Config

    layers = {"num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128}
    size = ModelSize.of(Qwen3Config(hidden_size=4096, intermediate_size=12288, vocab_size=151_936, **layers))
    assert 8.1e9 < size.num_parameters < 8.3e9
