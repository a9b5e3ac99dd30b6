"""The processes that train one policy together, each on its own device: this process alone, or torchrun's ranks."""

import logging
import os
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from transformers import PreTrainedModel

from services.learner.config import Device, Precision
from services.learner.model.rank_watch import RankWatch
from shared.errors import InvalidInput, Unavailable

T = TypeVar("T")
_COLLECTIVE_TIMEOUT = timedelta(minutes=10)
"""A collective of a step that takes longer ends the process."""
_IDLE_TIMEOUT = timedelta(days=7)
"""How long other ranks wait for a broadcast of rank 0. They notice its death at once."""


class ProcessGroup:
    """This process as one rank of `size`. Collective methods must be called by all ranks, in the same order."""

    def __init__(self, device: torch.device, precision: Precision = Precision.FLOAT32) -> None:
        self.rank = 0
        self.size = 1
        self.device = device
        self.precision = precision
        self._mesh: DeviceMesh | None = None
        self._broadcasts: dist.ProcessGroup | None = None
        self._watch: RankWatch | None = None

    @classmethod
    def join(cls, device: Device, precision: Precision) -> "ProcessGroup":
        """The group that torchrun's environment describes, else this process alone.

        InvalidInput where `device` is cuda and there is no such device.
        """
        group = cls(_device(device, int(os.environ.get("LOCAL_RANK", "0"))), precision)
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            group._connect()
        return group

    def _connect(self) -> None:
        on_cuda = self.device.type == "cuda"
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if on_cuda else "gloo",
            timeout=_COLLECTIVE_TIMEOUT,
            device_id=self.device if on_cuda else None,
        )
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self._mesh = init_device_mesh(self.device.type, (self.size,))
        self._broadcasts = dist.new_group(backend="gloo", timeout=_IDLE_TIMEOUT)
        self._watch = RankWatch(self.rank, self.size)

    @property
    def dtype(self) -> torch.dtype:
        """Of matrix products."""
        return torch.bfloat16 if self.precision is Precision.BFLOAT16 else torch.float32

    @property
    def is_rank0(self) -> bool:
        """Whether this process leads: rank 0 alone takes trees in, publishes and writes files."""
        return self.rank == 0

    @property
    def silent_seconds(self) -> tuple[float, ...]:
        """For rank 0: how long ago each of several ranks gave a sign of life."""
        return self._watch.silent_seconds if self._watch else ()

    @property
    def complaint(self) -> str:
        """For rank 0: which ranks give no sign of life; empty if all do."""
        return self._watch.complaint if self._watch else ""

    def distribute(self, model: PreTrainedModel) -> None:
        """Moves `model` to the device. Several ranks shard every weight (FSDP) and gather them layer by layer, so
        forward and backward passes are collective."""
        if self._mesh is None:
            model.to(self.device)
            return
        half = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        policy = half if self.precision is Precision.BFLOAT16 else MixedPrecisionPolicy()
        for part in list(model.modules()):
            if type(part).__name__ in (model._no_split_modules or ()):  # a decoder layer
                fully_shard(part, mesh=self._mesh, mp_policy=policy)
        fully_shard(model, mesh=self._mesh, mp_policy=policy, reshard_after_forward=True)

    def autocast(self) -> torch.autocast:
        """The context of a forward pass. A sharded model casts by itself, as it gathers its layers."""
        is_cast_here = self.precision is Precision.BFLOAT16 and self._mesh is None
        return torch.autocast(self.device.type, torch.bfloat16, enabled=is_cast_here)

    def shard(self, items: Sequence[T]) -> Iterator[tuple[T, bool]]:
        """This rank's items, and whether each counts: False for a filler, which repeats another rank's item so that
        all ranks have equally many."""
        for start in range(0, len(items), self.size):
            index = start + self.rank
            yield (items[index], True) if index < len(items) else (items[start], False)

    def all_reduce(self, values: Tensor) -> Tensor:
        """The sum of all ranks' `values`, on the CPU. Collective."""
        values = values.cpu()
        if self._mesh is not None:
            dist.all_reduce(values)
        return values

    def all_reduce_max(self, value: Tensor) -> float:
        """The largest of all ranks' `value`, which is not negative. Collective."""
        of_ranks = torch.zeros(self.size, dtype=value.dtype, device=value.device)
        of_ranks[self.rank] = value
        return float(self.all_reduce(of_ranks).max())

    def broadcast(self, message: bytes) -> None:
        """Sends rank 0's `message`, which is not empty, to all others, which wait in `receive_broadcast`."""
        if self._broadcasts is not None:
            dist.broadcast(torch.tensor([len(message)]), 0, group=self._broadcasts)
            dist.broadcast(torch.frombuffer(bytearray(message), dtype=torch.uint8), 0, group=self._broadcasts)

    def receive_broadcast(self) -> bytes:
        """The next message of rank 0. Unavailable when rank 0 is gone."""
        length = torch.zeros(1, dtype=torch.int64)
        try:
            dist.broadcast(length, 0, group=self._broadcasts)
            message = torch.empty(int(length), dtype=torch.uint8)
            dist.broadcast(message, 0, group=self._broadcasts)
        except RuntimeError as error:
            raise Unavailable(f"rank 0 is gone: {error}") from error
        return message.numpy().tobytes()

    def exit_together(self, code: int) -> None:
        """Exits this process once all ranks have called this; returns where there is one rank only. Collective.

        It skips torch's teardown, which aborts a process while another rank still uses the connection.
        """
        if self._mesh is not None:
            self.all_reduce(torch.zeros(1))
            logging.shutdown()
            os._exit(code)


def _device(wanted: Device, local_rank: int) -> torch.device:
    has_cuda = torch.cuda.is_available()
    if wanted is Device.CUDA and not has_cuda:
        raise InvalidInput("learner.device is cuda, but torch sees no CUDA device here; give auto or cpu")
    if wanted is Device.CPU or not has_cuda:
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise InvalidInput(
            f"local rank {local_rank} needs a CUDA device of its own, but there are {torch.cuda.device_count()}: start "
            "as many processes as devices (torchrun --nproc-per-node=gpu)"
        )
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return device


SINGLE_PROCESS = ProcessGroup(torch.device("cpu"))
"""This process alone, on its CPU."""
