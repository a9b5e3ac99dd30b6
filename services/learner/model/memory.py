"""Memory of training: its peak, its end, and layers that keep only their input for the backward pass."""

import gc
import resource
import sys
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from shared.errors import InvalidInput

_CLEAR_REFS, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
_SHORTAGES = ("can't allocate memory", "not enough memory", "bad_alloc")
"""What torch's allocators of the CPU say."""
_RESET_PEAK = "5"
"""What proc(5) takes to set the peak of the resident memory to its present size."""


def reset_peak_memory(device: torch.device) -> None:
    """Begins to measure anew. Where the kernel forbids it on a CPU, the peak stays that of the whole process."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        _CLEAR_REFS.write_text(_RESET_PEAK, encoding="ascii")
    except OSError:
        return


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory since `reset_peak_memory`: of torch's tensors on a CUDA device, else of this process in RAM."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        lines = _STATUS.read_text(encoding="utf-8").splitlines()
    except OSError:  # no Linux
        lines = []
    for line in lines:
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it says that memory could not be had, of a device or of this machine."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _SHORTAGES)


def release_memory(device: torch.device) -> None:
    """Gives back what nothing refers to any more."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def checkpoint_activations(model: PreTrainedModel) -> None:
    """Makes every decoder layer keep nothing but its input for the backward pass, which computes the layer again.

    transformers' own switch acts in training mode only, in which dropout would be on. The forward method itself is
    wrapped, so that hooks around it, such as those that gather a sharded layer, run as without.
    """
    layers = _outermost_layers(model)
    if not layers:
        raise InvalidInput(
            f"learner.activation_checkpointing: {model.config.model_type} has no layers that transformers can compute "
            "again; set it to false"
        )
    for layer in layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False)


def _outermost_layers(module: nn.Module) -> list[nn.Module]:
    if isinstance(module, GradientCheckpointingLayer):
        return [module]
    return [layer for child in module.children() for layer in _outermost_layers(child)]
