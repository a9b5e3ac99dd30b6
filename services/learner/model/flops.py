"""How much arithmetic a model's passes take, and how much a device can do: model FLOPs utilization."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

_DENSE_BF16_TFLOPS = {
    "B200": 2250.0,
    "GH200": 989.0,
    "H200": 989.0,
    "H100 PCIe": 756.0,
    "H100 NVL": 835.0,
    "H100": 989.0,
    "H800": 989.0,
    "H20": 148.0,
    "A100": 312.0,
    "A800": 312.0,
    "L40S": 362.0,
    "L40": 181.0,
    "L4": 121.0,
    "A40": 150.0,
    "A10": 125.0,
    "RTX 5090": 210.0,
    "RTX 4090": 165.0,
    "RTX 3090": 71.0,
}
"""Of makers' data sheets: products of bfloat16 matrices that add up in float32, without sparsity. The first name that
is in the device's counts."""


def peak_flops(device: torch.device) -> float | None:
    """The device's arithmetic per second; None where it is no CUDA device, or none that the table knows."""
    if device.type != "cuda":
        return None
    return peak_flops_of(torch.cuda.get_device_name(device))


def peak_flops_of(name: str) -> float | None:
    words = f" {name} ".replace("-", " ")
    return next((1e12 * tflops for known, tflops in _DENSE_BF16_TFLOPS.items() if f" {known} " in words), None)


@dataclass(frozen=True, slots=True)
class PassSize:
    """What a pass computes: `columns` without padding, which attend to `context` columns in all, themselves included,
    and `asked` places of the head."""

    columns: int
    context: int
    asked: int


@dataclass(frozen=True, slots=True)
class ModelFlops:
    """FLOPs of a model's passes, of which a product and its addition are two. What is computed twice to save memory
    counts once; windows, norms and activations do not count."""

    per_column: int
    per_context: int
    per_asked: int
    trains_all: bool

    @classmethod
    def of(cls, module: PreTrainedModel) -> "ModelFlops":
        config, head = module.config.get_text_config(), module.get_output_embeddings()
        layers = [one for one in module.modules() if isinstance(one, nn.Linear | Conv1D) and one is not head]
        num_heads = getattr(config, "num_attention_heads", 0)  # none where nothing attends
        width = num_heads * (getattr(config, "head_dim", None) or config.hidden_size // max(1, num_heads))
        return cls(
            per_column=2 * sum(one.weight.numel() for one in layers) + _expert_flops(module),
            per_context=4 * config.num_hidden_layers * width,
            per_asked=2 * config.vocab_size * config.hidden_size,
            trains_all=all(one.requires_grad for one in module.parameters()),
        )

    def forward(self, size: PassSize) -> int:
        return self.per_column * size.columns + self.per_context * size.context + self.per_asked * size.asked

    def training(self, size: PassSize) -> int:
        """Forward and backward: three times the products, or twice where the weights are frozen under adapters; for
        attention, which has no weights, three times in any case."""
        attention = self.per_context * size.context
        return (3 if self.trains_all else 2) * (self.forward(size) - attention) + 3 * attention


def _expert_flops(module: PreTrainedModel) -> int:
    """Of experts that transformers keeps in one tensor [experts, …], of which each column passes a few."""
    config: Any = module.config
    chosen = getattr(config, "num_experts_per_tok", 0)
    experts = [one for name, one in module.named_parameters() if ".experts." in name and one.dim() == 3]
    return sum(2 * one.numel() // one.shape[0] * chosen for one in experts)
