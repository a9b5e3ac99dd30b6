"""FLOPs of a model's passes against torch's own count, and the devices that are known."""

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from services.learner.config import AdapterConfig
from services.learner.model.adapters import Adapters
from services.learner.model.flops import ModelFlops, PassSize, peak_flops, peak_flops_of
from services.learner.model.model_files import read_module
from tests.learner.policies import write_policy

LENGTH = 16
SIZE = PassSize(columns=LENGTH, context=LENGTH * LENGTH, asked=LENGTH)
"""As torch counts: all pairs of columns, whatever is masked."""


@pytest.mark.parametrize("architecture", ["qwen3", "llama", "gpt2"])
@pytest.mark.parametrize("with_adapters", [False, True])
def test_flops_are_those_that_torch_counts(architecture: str, with_adapters: bool, tmp_path: Path) -> None:
    module = read_module(write_policy(tmp_path, architecture))
    module.set_attn_implementation("eager")  # torch does not count its fused attention on a CPU
    if with_adapters:
        Adapters(AdapterConfig(rank=1), tmp_path).attach(module, torch.float32)
    flops, ids = ModelFlops.of(module), torch.arange(LENGTH)[None]
    with FlopCounterMode(display=False) as forward:
        logits = module(ids).logits
    with FlopCounterMode(display=False) as backward:
        logits.sum().backward()
    assert flops.forward(SIZE) == pytest.approx(forward.get_total_flops(), rel=0.01)
    both = forward.get_total_flops() + backward.get_total_flops()
    assert flops.training(SIZE) == pytest.approx(both, rel=0.05)


def test_devices_are_known_by_name() -> None:
    assert peak_flops_of("NVIDIA H100 80GB HBM3") == 989e12
    assert peak_flops_of("NVIDIA H100 PCIe") == 756e12
    assert peak_flops_of("NVIDIA A100-SXM4-80GB") == 312e12
    assert peak_flops_of("NVIDIA L40S") == 362e12
    assert peak_flops_of("NVIDIA GeForce RTX 4090") == 165e12
    assert peak_flops_of("Some other card") is None
    assert peak_flops(torch.device("cpu")) is None
