"""AdamW's state by names, and its files: every rank writes and reads its own part, whatever the number of ranks was."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

Moments = dict[str, Tensor]
"""`<weight>.exp_avg`, `.exp_avg_sq` and `.step` of every weight in training, sharded as it is; empty before the first
update."""


def moments_of(module: nn.Module, optimizer: torch.optim.Optimizer) -> Moments:
    """The optimizer's own tensors."""
    named = ((name, optimizer.state.get(parameter, {})) for name, parameter in module.named_parameters())
    return {f"{name}.{kind}": tensor for name, state in named for kind, tensor in state.items()}


def make_moments(module: nn.Module, optimizer: torch.optim.Optimizer) -> Moments:
    """As `moments_of`, at zero where the optimizer has none yet."""
    for parameter in module.parameters():
        if parameter.requires_grad and not optimizer.state[parameter]:
            optimizer.state[parameter] = {
                "step": torch.zeros((), device=parameter.device),
                "exp_avg": torch.zeros_like(parameter, requires_grad=False),
                "exp_avg_sq": torch.zeros_like(parameter, requires_grad=False),
            }
    return moments_of(module, optimizer)


def copy_to_cpu(moments: Moments) -> Moments:
    """A copy that further updates leave as it is."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in moments.items()}


def write_moments(moments: Moments, directory: Path, group: Any) -> None:
    """Writes this rank's part, durable when this returns. Collective in `group`; None: this process alone."""
    _checkpoint(save, moments, directory, group)


def read_moments(into: Moments, directory: Path, group: Any) -> None:
    """Reads what `into` has of every weight, whoever wrote it. Collective, as `write_moments`. OSError where files are
    missing, damaged or of other weights."""
    _checkpoint(load, into, directory, group)


def has_moments(directory: Path) -> bool:
    """Whether there is a state in `directory`, or the run had made no update. OSError where it cannot be read."""
    try:
        return bool(FileSystemReader(directory).read_metadata().state_dict_metadata)
    except Exception as error:  # whatever a damaged pickle leads to
        raise OSError(f"{directory}: {error}") from error


def _checkpoint(work: Callable[..., Any], moments: Moments, directory: Path, group: Any) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that torch.distributed is not in use
            work(moments, checkpoint_id=directory, process_group=group, no_dist=group is None)
    except CheckpointException as error:  # no Exception, and its text is every rank's traceback
        failures = "; ".join(f"rank {rank}: {failure[0]}" for rank, failure in error.failures.items())
        raise OSError(f"{directory}: {failures}") from error
