"""AdamW's state by names, and its files: every rank writes and reads its own part, whatever the number of ranks was."""

import pickle
import warnings
from collections.abc import Callable
from enum import EnumMeta
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

Moments = dict[str, Tensor]
"""`<weight>.exp_avg`, `.exp_avg_sq` and `.step` of every weight in training, sharded as it is; empty before the first
update."""
_OF_AN_INDEX = {
    "torch.distributed.checkpoint.metadata": {
        *("Metadata", "MetadataIndex", "StorageMeta", "TensorStorageMetadata", "TensorProperties"),
        *("ChunkStorageMetadata", "_MEM_FORMAT_ENCODING"),
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.serialization": {"_get_layout"},
    "torch": {"Size", "float32", "float64", "bfloat16", "float16", "int64"},
    "pathlib": {"PosixPath", "WindowsPath"},
    "pathlib._local": {"PosixPath", "WindowsPath"},  # of Python 3.13
}
"""What the index of a checkpoint of tensors is made of, by module. Without the class that stands for other objects than
tensors, which torch would read with pickle."""


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
    _checkpoint(partial(load, storage_reader=_Reader(directory)), into, directory, group)


def has_moments(directory: Path) -> bool:
    """Whether there is a state in `directory`, or the run had made no update. OSError where it cannot be read."""
    try:
        return bool(_Reader(directory).read_metadata().state_dict_metadata)
    except Exception as error:  # whatever a damaged pickle leads to
        raise OSError(f"{directory}: {error}") from error


class _Reader(FileSystemReader):
    """torch keeps a checkpoint's index as a pickle, which could run code: here it can make nothing but an index."""

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        with Path(self.path, ".metadata").open("rb") as file:
            metadata: Metadata = _IndexUnpickler(file).load()
        metadata.storage_meta = metadata.storage_meta or StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata


class _IndexUnpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str) -> Any:
        if (module_name, global_name) == ("builtins", "getattr"):
            return _member
        if global_name not in _OF_AN_INDEX.get(module_name, ()):
            raise pickle.UnpicklingError(f"{module_name}.{global_name} is no part of an index of tensors")
        return super().find_class(module_name, global_name)


def _member(enumeration: Any, name: str) -> Any:
    """What getattr is in the pickles of Python 3.11.0 to 3.11.3: a member of an enumeration."""
    if not isinstance(enumeration, EnumMeta):
        raise pickle.UnpicklingError(f"an attribute {name} is no part of an index of tensors")
    return enumeration[name]


def _checkpoint(work: Callable[..., Any], moments: Moments, directory: Path, group: Any) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that torch.distributed is not in use
            work(moments, checkpoint_id=directory, process_group=group, no_dist=group is None)
    except CheckpointException as error:  # no Exception, and its text is every rank's traceback
        failures = "; ".join(f"rank {rank}: {failure[0]}" for rank, failure in error.failures.items())
        raise OSError(f"{directory}: {failures}") from error
