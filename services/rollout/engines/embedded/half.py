"""Matrix products in bfloat16, about twice as fast on CPUs with instructions for them (docs/results/engine.md)."""

from pathlib import Path

import torch
from torch import nn

from shared.weights import tensor_shapes


class HalfLinear(nn.Module):
    """A linear map that multiplies in bfloat16; what comes in and goes out is float32, as under autocast."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = nn.Parameter(linear.weight.to(torch.bfloat16), requires_grad=False)
        self.bias = linear.bias

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        products = nn.functional.linear(inputs.to(torch.bfloat16), self.weight).float()
        return products if self.bias is None else products + self.bias


def halve_products(module: nn.Module) -> None:
    """Makes all linear maps in `module` HalfLinear. The head has weights of its own from now on, tied or not."""
    for name, child in module.named_children():
        if type(child) is nn.Linear:
            setattr(module, name, HalfLinear(child))
        else:
            halve_products(child)


def should_halve(snapshot: Path) -> bool:
    """Whether the weights are bfloat16 already, so that nothing of them is lost, and this CPU has AMX for it."""
    has_instructions = bool(torch.cpu.get_capabilities().get("amx_bf16"))
    return has_instructions and {tensor.dtype for tensor in tensor_shapes(snapshot).values()} == {"BF16"}
