"""The processes that train one policy together, each with a device of its own: this one alone, or torchrun's."""

import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from services.learner.config import Device, Precision
from shared.errors import InvalidInput, Unavailable

T = TypeVar("T")
_COLLECTIVE = timedelta(minutes=10)
"""What a collective of a step may take: one that hangs longer ends the process."""
_IDLE = timedelta(days=7)
"""How long others wait for the first process's word. Its death they notice at once."""


class World:
    """One process of `size`. What the docstrings call together has to be called by all of them, in the same order."""

    def __init__(self, device: torch.device, precision: Precision = Precision.FLOAT32) -> None:
        self.rank = 0
        self.size = 1
        self.device = device
        self.precision = precision
        self._mesh: DeviceMesh | None = None
        self._talk: dist.ProcessGroup | None = None

    @classmethod
    def join(cls, device: Device, precision: Precision) -> "World":
        """The world that torchrun's environment describes, else of this process alone.

        InvalidInput where `device` is cuda and there is no such device.
        """
        world = cls(_device(device, int(os.environ.get("LOCAL_RANK", "0"))), precision)
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            world._meet()
        return world

    def _meet(self) -> None:
        on_cuda = self.device.type == "cuda"
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if on_cuda else "gloo",
            timeout=_COLLECTIVE,
            device_id=self.device if on_cuda else None,
        )
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self._mesh = init_device_mesh(self.device.type, (self.size,))
        self._talk = dist.new_group(backend="gloo", timeout=_IDLE)

    @property
    def is_first(self) -> bool:
        """Whether this process leads: it alone takes trees in, publishes and writes."""
        return self.rank == 0

    def place(self, model: nn.Module, layers: Iterable[nn.Module]) -> None:
        """Brings `model` to the device. Of several processes each then holds a share of every weight (FSDP), and reads
        the others' layer by layer; a forward or backward pass is together."""
        if self._mesh is None:
            model.to(self.device)
            return
        half = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        policy = half if self.precision is Precision.BFLOAT16 else MixedPrecisionPolicy()
        for layer in layers:
            fully_shard(layer, mesh=self._mesh, mp_policy=policy)
        fully_shard(model, mesh=self._mesh, mp_policy=policy, reshard_after_forward=True)

    def in_precision(self) -> torch.autocast:
        """The context of a forward pass. A sharded model casts by itself, layer by layer as it gathers them."""
        is_cast_here = self.precision is Precision.BFLOAT16 and self._mesh is None
        return torch.autocast(self.device.type, torch.bfloat16, enabled=is_cast_here)

    def dealt(self, items: Sequence[T]) -> Iterator[tuple[T, bool]]:
        """This process's share of `items`, and whether it counts: all get equally many, the last perhaps another's."""
        for start in range(0, len(items), self.size):
            own = start + self.rank
            yield (items[own], True) if own < len(items) else (items[start], False)

    def total(self, values: Tensor) -> Tensor:
        """The sum of all processes' `values`, on the CPU. Together."""
        values = values.cpu()
        if self._mesh is not None:
            dist.all_reduce(values)
        return values

    def tell(self, word: bytes) -> None:
        """Says `word`, which is not empty, to the others, which are waiting to `hear` it."""
        if self._talk is not None:
            dist.broadcast(torch.tensor([len(word)]), 0, group=self._talk)
            dist.broadcast(torch.frombuffer(bytearray(word), dtype=torch.uint8), 0, group=self._talk)

    def hear(self) -> bytes:
        """What the first process tells next. Unavailable when it has gone."""
        length = torch.zeros(1, dtype=torch.int64)
        try:
            dist.broadcast(length, 0, group=self._talk)
            word = torch.empty(int(length), dtype=torch.uint8)
            dist.broadcast(word, 0, group=self._talk)
        except RuntimeError as error:
            raise Unavailable(f"the first process is gone: {error}") from error
        return word.numpy().tobytes()

    def end(self, code: int) -> None:
        """Of several processes: ends this one as soon as all have come to their end. Together.

        At once, because what connects them aborts a process that takes it down while another still uses it.
        """
        if self._mesh is not None:
            self.total(torch.zeros(1))
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
            f"process {local_rank} has no CUDA device of its own, there are {torch.cuda.device_count()}: start as many "
            "processes as devices (torchrun --nproc-per-node=gpu)"
        )
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return device


ALONE = World(torch.device("cpu"))
"""This process, on its CPU."""
