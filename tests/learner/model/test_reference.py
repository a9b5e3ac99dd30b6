"""The model that KL compares with: in half the memory, or off the device between its passes."""

from pathlib import Path

import pytest
import torch

from services.learner.config import Device, Precision, ReferenceConfig
from services.learner.model.policy import LanguageModel, Policy
from services.learner.model.prefix_rows import PrefixRows
from services.learner.model.process_group import ProcessGroup
from services.learner.training.trainer import Trainer
from shared.errors import InvalidInput
from tests.learner.conftest import Configure
from tests.learner.synthetic import build_all, trie_of
from tests.learner.training.test_trainer import CURRENT, trees

ROWS = PrefixRows.collate([trie_of([3, 4, 5, 6, 7], [3, 4, 8, 9])])
HALF = ReferenceConfig(precision=Precision.BFLOAT16)


def reference(directory: Path, kept: ReferenceConfig, group: ProcessGroup | None = None) -> LanguageModel:
    group = group or ProcessGroup(torch.device("cpu"))
    return LanguageModel.load(directory, 1.0, group, is_frozen=True, reference=kept)


def test_a_reference_in_bfloat16_rounds_weights_and_not_positions(policy_dir: Path) -> None:
    whole, half = reference(policy_dir, ReferenceConfig()), reference(policy_dir, HALF)
    assert {one.dtype for one in whole.module.parameters()} == {torch.float32}
    assert {one.dtype for one in half.module.parameters()} == {torch.bfloat16}
    assert {one.dtype for one in half.module.buffers()} == {torch.float32}
    difference = half.statistics(ROWS).logprobs_RS - whole.statistics(ROWS).logprobs_RS
    assert 0 < float(difference.abs().max()) < 0.05


def test_a_step_reads_a_reference_in_bfloat16(configure: Configure, policy_dir: Path) -> None:
    config = configure(objective={"kl_coef": 0.1}, reference={"precision": "bfloat16", "offload": True})
    policy = Policy(policy_dir, 1.0, config.optimizer)
    trainer = Trainer(policy, reference(policy_dir, config.reference), config)
    update = trainer.step(build_all(trees(3)), CURRENT, 1e-3, "")
    assert update.applied == 1
    assert update.kl is not None
    assert update.kl < 1e-3


def test_several_ranks_offload_no_reference(policy_dir: Path) -> None:
    group = ProcessGroup(torch.device("cpu"))
    group.size = 2
    with pytest.raises(InvalidInput, match=r"reference\.offload is true.*set it to false"):
        reference(policy_dir, ReferenceConfig(offload=True), group)


@pytest.mark.gpu
def test_between_its_passes_an_offloaded_reference_is_off_the_device(policy_dir: Path) -> None:
    group = ProcessGroup.join(Device.CUDA, Precision.FLOAT32)
    model = reference(policy_dir, ReferenceConfig(offload=True), group)
    assert next(model.module.parameters()).device.type == "cpu"
    with model.on_device():
        assert next(model.module.parameters()).device.type == "cuda"
    assert next(model.module.parameters()).device.type == "cpu"
