"""A run that trains adapters: what replicas get, what it leaves, and how it goes on."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from services.learner.config import LearnerConfig
from services.learner.model.process_group import SINGLE_PROCESS
from services.learner.record.checkpoint import CheckpointStore
from services.learner.wiring import Start
from shared.errors import InvalidInput
from tests.learner.conftest import Configure
from tests.learner.fake_replica import Replica
from tests.learner.policies import write_policy
from tests.learner.test_run import running

LORA = {"rank": 4, "alpha": 8}


def read(config: LearnerConfig) -> Start:
    """What a learner that is started again begins with."""
    return Start.read(config, CheckpointStore(config.run_dir / "checkpoints", 2), SINGLE_PROCESS)


@pytest.fixture
async def trained(configure: Configure, redis_url: str, replica: Replica) -> LearnerConfig:
    """The configuration of a run that has trained adapters for two steps."""
    config = configure(redis_url=redis_url, lora=LORA, total_steps=2, optimizer={"lr": 0.01})
    async with replica("one") as one, running(config) as learner:
        assert await learner.end() == 0
        assert one.loaded[-1].number > 0
    return config


async def test_a_run_leaves_a_merged_policy_and_adapters(trained: LearnerConfig) -> None:
    merged = AutoModelForCausalLM.from_pretrained(trained.run_dir / "policy").state_dict()
    base = AutoModelForCausalLM.from_pretrained(trained.model).state_dict()
    assert merged.keys() == base.keys()
    changed = {name for name in base if not torch.equal(merged[name], base[name])}
    assert changed == {name for name in base if name.endswith("_proj.weight")}
    config = json.loads((trained.run_dir / "adapter" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["base_model_name_or_path"]) == (4, 8, str(trained.model))
    last = trained.run_dir / "checkpoints" / "2" / "policy"
    kept, exported = (load_file(one / "adapter_model.safetensors") for one in (last, trained.run_dir / "adapter"))
    assert kept.keys() == exported.keys()
    assert all(torch.equal(kept[name], exported[name]) for name in kept)
    assert not (last / "model.safetensors").exists()


async def test_it_goes_on_with_its_adapters(trained: LearnerConfig) -> None:
    policy = read(trained).ranks.policy
    merged = load_file(trained.run_dir / "policy" / "model.safetensors")
    assert all(torch.equal(tensor, merged[name]) for name, tensor in policy.weights().items())
    assert policy.copy().moments


async def test_it_does_not_go_on_with_what_does_not_fit(trained: LearnerConfig, tmp_path: Path) -> None:
    refused: dict[str, dict[str, object]] = {
        "holds adapters, and there is no table": {"lora": None},
        "give lora.rank=4": {"lora": {"rank": 8, "alpha": 8}},
        "give the target_modules of the earlier run": {"lora": LORA | {"target_modules": ["q_proj"]}},
        "give the earlier learner.model": {"model": write_policy(tmp_path / "other", "llama")},
    }
    for said, changes in refused.items():
        with pytest.raises(InvalidInput, match=said):
            read(LearnerConfig.model_validate(trained.model_dump() | changes))


async def test_a_run_of_all_weights_does_not_go_on_with_adapters(
    configure: Configure, redis_url: str, replica: Replica
) -> None:
    config = configure(redis_url=redis_url, total_steps=1)
    async with replica("one"), running(config) as learner:
        assert await learner.end() == 0
    with pytest.raises(InvalidInput, match="leave that table out"):
        read(LearnerConfig.model_validate(config.model_dump() | {"lora": LORA}))
