"""A step that runs out of memory: tried in smaller passes where that helps, else an error that says what to change."""

import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen3Config

from services.learner.config import LearnerConfig
from services.learner.model.policy import LanguageModel, Policy
from services.learner.model.prefix_rows import PrefixRows
from services.learner.training.trainer import Trainer
from shared.errors import InvalidInput
from tests.learner.conftest import Configure
from tests.learner.policies import write_policy
from tests.learner.synthetic import build_all
from tests.learner.torchrun import ENVIRONMENT
from tests.learner.training.test_trainer import CURRENT, Recorder, assert_equal, trees

ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to allocate"),
    MemoryError("std::bad_alloc"),
]


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
    """Lets passes of more tokens than a limit run out of memory; returns the sizes of the passes that were tried."""

    def start(max_tokens: int, error: Exception, *, in_backward: bool = False) -> list[int]:
        tried: list[int] = []
        whole = LanguageModel.statistics

        def statistics(model: LanguageModel, rows: PrefixRows) -> Any:
            tried.append(rows.token_ids_RS.numel())
            found = whole(model, rows)
            if tried[-1] > max_tokens:
                if not (in_backward and found.logprobs_RS.requires_grad):
                    raise error

                def fail(gradient: torch.Tensor) -> None:
                    raise error

                found.logprobs_RS.register_hook(fail)
            return found

        monkeypatch.setattr(LanguageModel, "statistics", statistics)
        return tried

    return start


@pytest.mark.parametrize("in_backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_step_out_of_memory_is_tried_again_in_smaller_passes(
    error: Exception,
    in_backward: bool,
    configure: Configure,
    monkeypatch: pytest.MonkeyPatch,
    limit: Callable[..., list[int]],
) -> None:
    batch = trees(3, count=4)
    config = configure(objective={"kl_coef": 0.1, "micro_batch_tokens": 1000})
    whole = Recorder(config, monkeypatch)
    expected = whole.step(batch)
    short = Recorder(config, monkeypatch)
    tried = limit(100, error, in_backward=in_backward)
    found = short.step(batch)
    assert max(tried) > 100
    assert found.memory_retries == 1 + (max(tried) > 200)
    assert_equal(whole.gradients[0], short.gradients[0])
    for name in ("trained_tokens", "loss", "entropy", "kl", "ratio_max"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), abs=1e-6), name
    tried.clear()
    assert short.step(batch).memory_retries == 0  # what did not fit is not tried again
    assert max(tried) <= 100


def test_where_one_trajectory_does_not_fit_the_error_says_what_to_change(
    configure: Configure, limit: Callable[..., list[int]]
) -> None:
    config = configure(objective={"kl_coef": 0.0})
    policy = Policy(config.model, 1.0, config.optimizer)
    before = {name: tensor.clone() for name, tensor in policy.model.module.state_dict().items()}
    tried = limit(3, ERRORS[0])
    with pytest.raises(InvalidInput, match=r"one trajectory of \d+ tokens .*activation_checkpointing.*max_tokens"):
        Trainer(policy, None, config).step(build_all(trees(3)), CURRENT, 1e-3, "")
    assert len(tried) < 10
    assert all(torch.equal(before[name], tensor) for name, tensor in policy.model.module.state_dict().items())
    assert all(parameter.grad is None for parameter in policy.model.module.parameters())


def test_another_error_is_not_taken_for_it(configure: Configure, limit: Callable[..., list[int]]) -> None:
    config = configure(objective={"kl_coef": 0.0})
    trainer = Trainer(Policy(config.model, 1.0, config.optimizer), None, config)
    tried = limit(3, RuntimeError("shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="multiplied"):
        trainer.step(build_all(trees(3)), CURRENT, 1e-3, "")
    assert len(tried) == 1


def test_an_optimizer_without_memory_for_its_moments_says_so(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(objective={"kl_coef": 0.0})
    policy = Policy(config.model, 1.0, config.optimizer)

    def fail(optimizer: object) -> None:
        raise ERRORS[0]

    monkeypatch.setattr(torch.optim.AdamW, "step", fail)
    with pytest.raises(InvalidInput, match=r"AdamW ran out of memory.*8 bytes .*set lora"):
        Trainer(policy, None, config).step(build_all(trees(3)), CURRENT, 1e-3, "")


def train_in_little_memory(model: Path, room_mib: int) -> None:
    """In a process of its own: a step over long answers of a wide model, with this much memory beyond what it has."""
    torch.set_num_threads(1)
    config = LearnerConfig.model_validate(
        {
            "model": model,
            "data": model,
            "growth": {"sampler": {"kind": "independent", "initial_draws": 8}},
            "total_steps": 1,
            "objective": {"kl_coef": 0.0, "micro_batch_tokens": 100_000},
        }
    )
    trainer = Trainer(Policy(config.model, 1.0, config.optimizer), None, config)
    trainer.step(build_all(trees(0, count=1)), CURRENT, 1e-3, "")  # what a first step alone needs
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limit = used + room_mib * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    update = trainer.step(build_all(trees(1, count=40, max_tokens=50)), CURRENT, 1e-3, "")
    print(update.memory_retries, update.applied)


@pytest.mark.drill
def test_a_real_shortage_is_overcome(tmp_path: Path) -> None:
    write_policy(tmp_path)
    sizes = {"vocab_size": 24, "hidden_size": 64, "intermediate_size": 4096, "num_hidden_layers": 2, "head_dim": 16}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64}
    AutoModelForCausalLM.from_config(Qwen3Config(**sizes, **heads)).save_pretrained(tmp_path)
    code = f"from {__name__} import *; train_in_little_memory(Path({str(tmp_path)!r}), 400)"
    environment = ENVIRONMENT | {"MALLOC_ARENA_MAX": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    retries, applied = map(int, done.stdout.split())
    assert retries >= 1
    assert applied == 1
