"""A finished tree on its way to the learner: its record of draws, packed, with what growing it took."""

import sys
from array import array
from typing import Any

import msgpack
from pydantic import Field

from shared.errors import InvalidInput
from shared.protocol.message import PROTOCOL_VERSION, Message
from shared.protocol.task import Task
from shared.tree.diagnostics import TreeFigures, diagnose
from shared.tree.draw import Draw, Finish, VersionSpan, WeightVersion
from shared.tree.ib_score import IBSettings
from shared.tree.node import Tree, build_tree


class TreeUsage(Message):
    """What growing one tree took. Reusable prefix tokens are those of a branch's request that an earlier request of
    the same tree computed; cached ones were served from the engine's prefix cache."""

    generated_tokens: int = 0
    prompt_tokens: int = 0
    reusable_tokens: int = 0
    cached_tokens: int = 0
    unjudged_draws: int = 0
    seconds: float = 0.0
    engine_seconds: float = 0.0
    verify_seconds: float = 0.0


class ScoredTree(Message):
    """The draws of one task with their rewards and raw log-probabilities; credit is the learner's."""

    task: Task
    replica: str
    draws: tuple[Draw, ...] = Field(min_length=1)
    usage: TreeUsage

    @property
    def oldest_version(self) -> WeightVersion:
        """The oldest weights that sampled one of its tokens: what its staleness counts from."""
        return min(draw.oldest_version for draw in self.draws)

    def tree(self) -> Tree:
        """The tree that its draws span."""
        return build_tree(self.draws, self.task.growth.merge)

    def figures(self) -> TreeFigures:
        """Its diagnostics, scored as its own sampler scores, or as published."""
        sampler = self.task.growth.sampler
        return diagnose(self.tree(), getattr(sampler, "score", IBSettings()), sampler.first)

    def pack(self) -> bytes:
        """The wire form: msgpack, with token ids as little-endian int32 and log-probabilities as float32."""
        body = {
            "protocol": PROTOCOL_VERSION,
            "task": self.task.model_dump(mode="json"),
            "replica": self.replica,
            "usage": self.usage.model_dump(),
            "draws": [_pack_draw(draw) for draw in self.draws],
        }
        return bytes(msgpack.packb(body))

    @classmethod
    def unpack(cls, data: bytes) -> "ScoredTree":
        """The inverse of `pack`; InvalidInput for anything else."""
        try:
            body = msgpack.unpackb(data, strict_map_key=True)
            if body["protocol"] != PROTOCOL_VERSION:
                raise ValueError(f"protocol {body['protocol']}, this process speaks {PROTOCOL_VERSION}")
            return cls(
                task=Task.model_validate(body["task"]),
                replica=body["replica"],
                usage=TreeUsage.model_validate(body["usage"]),
                draws=tuple(_unpack_draw(draw) for draw in body["draws"]),
            )
        except (ValueError, KeyError, TypeError, msgpack.UnpackException) as error:
            raise InvalidInput(f"not a scored tree: {error}") from error


def _pack(kind: str, values: tuple[Any, ...]) -> bytes:
    packed = array(kind, values)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def _unpack(kind: str, data: bytes) -> tuple[Any, ...]:
    values = array(kind)
    values.frombytes(data)
    if sys.byteorder == "big":
        values.byteswap()
    return tuple(values)


def _pack_draw(draw: Draw) -> dict[str, Any]:
    return {
        "parent": draw.parent,
        "cut": draw.cut,
        "token_ids": _pack("i", draw.token_ids),
        "logprobs": _pack("f", draw.logprobs),
        "sampling_logprobs": None if draw.sampling_logprobs is None else _pack("f", draw.sampling_logprobs),
        "step_ends": _pack("i", draw.step_ends),
        "spans": [[span.version.generation, span.version.number, span.start, span.end] for span in draw.spans],
        "finish": draw.finish.value,
        "reward": draw.reward,
    }


def _unpack_draw(body: dict[str, Any]) -> Draw:
    sampling = body["sampling_logprobs"]
    return Draw(
        parent=body["parent"],
        cut=body["cut"],
        token_ids=_unpack("i", body["token_ids"]),
        logprobs=_unpack("f", body["logprobs"]),
        sampling_logprobs=None if sampling is None else _unpack("f", sampling),
        step_ends=_unpack("i", body["step_ends"]),
        spans=tuple(
            VersionSpan(WeightVersion(generation, number), start, end)
            for generation, number, start, end in body["spans"]
        ),
        finish=Finish(body["finish"]),
        reward=body["reward"],
    )
