"""The processes that train one policy together, each on its own device: this process alone, or torchrun's ranks."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from services.learner.config import Device, Precision
from services.learner.model.sharding.rank_store import read_failure, report_failure
from services.learner.model.sharding.rank_watch import RankWatch
from services.learner.model.sharding.skeleton import make_room
from shared.errors import InvalidInput, Unavailable

_COLLECTIVE_TIMEOUT = timedelta(minutes=10)
"""A collective of a step, or a message between ranks that work on one, that takes longer ends the process."""
_IDLE_TIMEOUT = timedelta(days=7)
"""How long other ranks wait for rank 0's next message. They notice its death at once."""


class ProcessGroup:
    """This process as one rank of `size`. Collective methods must be called by all ranks, in the same order."""

    def __init__(self, device: torch.device, precision: Precision = Precision.FLOAT32) -> None:
        self.rank = 0
        self.size = 1
        self.device = device
        self.precision = precision
        self._mesh: DeviceMesh | None = None
        self._messages: dist.ProcessGroup | None = None
        self.background: dist.ProcessGroup | None = None
        """For what a thread beside training does together with the other ranks' threads; None: there are none."""
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
        self._messages = dist.new_group(backend="gloo", timeout=_IDLE_TIMEOUT)
        self.background = dist.new_group(backend="gloo", timeout=_COLLECTIVE_TIMEOUT)
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

    def report_failure(self, reason: str) -> None:
        """Says to rank 0 why this rank gives up."""
        if self._mesh is not None:
            report_failure(self.rank, reason)

    @contextmanager
    def naming_failures(self) -> Iterator[None]:
        """For rank 0: where another rank gives up while the block works with all, InvalidInput with its reason, in
        place of torch's error about the connection."""
        try:
            yield
        except (RuntimeError, Unavailable) as error:
            if self._mesh is not None and (reason := read_failure(self.size)):
                raise InvalidInput(reason) from error
            raise

    def distribute(self, model: PreTrainedModel) -> None:
        """Moves `model` to the device. Several ranks shard every weight (FSDP) and gather them layer by layer, so
        forward and backward passes are collective. Rank 0 has the weights, the others a model whose tensors are on no
        device, to which it sends their parts, so that at any moment no device holds more than a layer that is whole."""
        if self._mesh is None:
            model.to(self.device)
            return
        self._send_buffers(model)
        half = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        policy = half if self.precision is Precision.BFLOAT16 else MixedPrecisionPolicy()
        layers = [one for one in model.modules() if type(one).__name__ in (model._no_split_modules or ())]
        for part in (*layers, model):
            make_room(part, self.device)
            whole = {name: one.detach() for name, one in part.named_parameters() if not isinstance(one, DTensor)}
            fully_shard(part, mesh=self._mesh, mp_policy=policy, reshard_after_forward=True)
            sharded = dict(part.named_parameters())
            for name, tensor in whole.items():
                self._send_parts(tensor, cast(DTensor, sharded[name]))

    def _send_buffers(self, model: PreTrainedModel) -> None:
        """From rank 0 to all others: what a model computes as it is made, such as the frequencies of rotations."""
        for name, buffer in list(model.named_buffers(remove_duplicate=False)):
            if self.is_rank0:
                self.send_all(buffer.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
            else:
                path, _, leaf = name.rpartition(".")
                values = torch.frombuffer(bytearray(self.receive()), dtype=buffer.dtype).view(buffer.shape)
                model.get_submodule(path)._buffers[leaf] = values.to(self.device)

    def _send_parts(self, whole: Tensor, sharded: DTensor) -> None:
        """From rank 0, which has the `whole` weight, to every other rank its part along the first dimension."""
        if not self.is_rank0:
            part = cast(DTensor, sharded.detach()).to_local()
            values = torch.empty(part.numel() * part.element_size(), dtype=torch.uint8)
            if len(values):
                dist.recv(values, 0, group=self._messages)
                part.copy_(values.view(part.dtype).view(part.shape))
            return
        for rank, part in enumerate(whole.chunk(self.size)):
            if rank:
                dist.send(part.cpu().contiguous().flatten().view(torch.uint8), rank, group=self._messages)

    def autocast(self) -> torch.autocast:
        """The context of a forward pass. A sharded model casts by itself, as it gathers its layers."""
        is_cast_here = self.precision is Precision.BFLOAT16 and self._mesh is None
        return torch.autocast(self.device.type, torch.bfloat16, enabled=is_cast_here)

    def sync_gradients(self, module: PreTrainedModel, *, when: bool) -> None:
        """Whether the next backward pass adds up the ranks' gradients, with those that were left unsynced before."""
        if self._mesh is not None:
            cast(FSDPModule, module).set_requires_gradient_sync(when)

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

    def send(self, rank: int, message: bytes) -> None:
        """To one rank, which waits in `receive`. Unavailable when it is gone, or stands still."""
        parts = [torch.tensor([len(message)])]
        if message:
            parts.append(torch.frombuffer(bytearray(message), dtype=torch.uint8))
        try:
            for part in parts:
                _wait(dist.isend(part, rank, group=self._messages), _COLLECTIVE_TIMEOUT)
        except RuntimeError as error:
            raise Unavailable(f"rank {rank} is gone or stands still: {error}") from error

    def send_all(self, message: bytes) -> None:
        """From rank 0 to all others."""
        for rank in range(1, self.size):
            self.send(rank, message)

    def receive(self, rank: int = 0) -> bytes:
        """The next message of another rank. Unavailable when it is gone, or, to rank 0, when it stands still."""
        deadline = _COLLECTIVE_TIMEOUT if self.is_rank0 else _IDLE_TIMEOUT
        length = torch.zeros(1, dtype=torch.int64)
        try:
            _wait(dist.irecv(length, rank, group=self._messages), deadline)
            message = torch.empty(int(length), dtype=torch.uint8)
            if len(message):
                _wait(dist.irecv(message, rank, group=self._messages), _COLLECTIVE_TIMEOUT)
        except RuntimeError as error:
            raise Unavailable(f"rank {rank} is gone or stands still: {error}") from error
        return message.numpy().tobytes()

    def exit_together(self, code: int) -> None:
        """Exits this process once all ranks have called this; returns where there is one rank only. Collective."""
        if self._mesh is not None:
            self.all_reduce(torch.zeros(1))
            self.exit_alone(code)

    def exit_alone(self, code: int) -> None:
        """Exits this process; returns where there is one rank only.

        It skips torch's teardown, which crashes a process while another rank, or a thread of this one, still uses a
        connection.
        """
        if self._mesh is not None:
            logging.shutdown()
            os._exit(code)


def _wait(work: dist.Work | None, deadline: timedelta) -> None:
    if work is not None:  # as it is for a rank of the group
        work.wait(deadline)


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
