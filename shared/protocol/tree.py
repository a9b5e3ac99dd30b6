"""A finished tree for the learner: its record of draws, packed, and what growing it cost."""

import sys
from array import array
from math import isfinite
from typing import Any

import msgpack
from pydantic import Field, ValidationError

from shared.errors import InvalidInput, first_reason
from shared.protocol.message import PROTOCOL_VERSION, Message
from shared.protocol.task import Task
from shared.tree.cutting import check_fork
from shared.tree.diagnostics import TreeFigures, ValuesOf, diagnose, with_lengths
from shared.tree.draw import Draw, Finish, VersionSpan, WeightVersion
from shared.tree.ib_score import IBSettings
from shared.tree.node import Tree, build_tree
from shared.tree.values import node_values


class TreeUsage(Message):
    """What growing one tree cost. Reusable tokens are those of a branch's prompt that an earlier request of the same
    tree computed; cached ones came from the engine's prefix cache. Scored tokens are those of gold answers at step
    ends; an unscored draw is one whose likelihoods were asked for and are not known."""

    generated_tokens: int = 0
    prompt_tokens: int = 0
    reusable_tokens: int = 0
    cached_tokens: int = 0
    unjudged_draws: int = 0
    scored_tokens: int = 0
    unscored_draws: int = 0
    seconds: float = 0.0
    engine_seconds: float = 0.0
    verify_seconds: float = 0.0


class ScoredTree(Message):
    """The draws of one task with their rewards and raw log-probabilities; the learner assigns credit."""

    task: Task
    replica: str
    draws: tuple[Draw, ...] = Field(min_length=1)
    usage: TreeUsage

    @property
    def oldest_version(self) -> WeightVersion:
        """The oldest weights that sampled one of its tokens."""
        return min(draw.oldest_version for draw in self.draws)

    @property
    def versions(self) -> frozenset[WeightVersion]:
        """The weights that sampled its tokens."""
        return frozenset(span.version for draw in self.draws for span in draw.spans)

    @property
    def rewards(self) -> tuple[float, ...]:
        """Of the draws that count."""
        return tuple(reward for draw in self.draws if (reward := draw.counted_reward) is not None)

    def staleness(self, version: WeightVersion) -> int:
        """How many updates lie between `version` and the farthest version that sampled one of its tokens: the oldest,
        or one of an abandoned generation that was ahead."""
        return max(abs(version.number - sampled.number) for sampled in self.versions)

    def tree(self) -> Tree:
        """The tree of its draws."""
        return build_tree(self.draws, self.task.growth.merge_equal_draws)

    @property
    def ib_settings(self) -> IBSettings:
        """How its nodes are scored: as its sampler scored them; as the task says, if its sampler does not score."""
        return self.task.growth.sampler.score or self.task.score

    def figures(self, tree: Tree | None = None, values_of: ValuesOf = node_values) -> TreeFigures:
        """Its diagnostics, by `ib_settings`. `tree`: already built."""
        initial_draws = self.task.growth.sampler.initial_draws
        figures = diagnose(tree or self.tree(), self.ib_settings, initial_draws, values_of)
        return with_lengths(figures, self.draws)

    def pack(self) -> bytes:
        """The wire form: msgpack, with token ids as little-endian int32, log-probabilities and entropies as float32."""
        body = {
            "protocol": PROTOCOL_VERSION,
            "task": self.task.model_dump(mode="json"),
            "replica": self.replica,
            "usage": self.usage.model_dump(exclude_defaults=True),
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
            tree = cls(
                task=Task.model_validate(body["task"]),
                replica=body["replica"],
                usage=TreeUsage.model_validate(body["usage"]),
                draws=tuple(_unpack_draw(draw) for draw in body["draws"]),
            )
            for draw_id, draw in enumerate(tree.draws):
                if draw.parent is not None:
                    check_fork(tree.draws, draw_id, draw.parent)
        except ValidationError as error:
            raise InvalidInput(f"not a scored tree: {first_reason(error)[:500]}") from error
        except (ValueError, KeyError, TypeError, msgpack.UnpackException) as error:
            raise InvalidInput(f"not a scored tree: {str(error)[:500]}") from error
        return tree


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
        "spans": [_pack_span(span) for span in draw.spans],
        "finish": draw.finish.value,
        "reward": draw.reward,
        "final_answer": draw.final_answer,
        "step_likelihoods": None if draw.step_likelihoods is None else _pack("f", draw.step_likelihoods),
        "entropies": None if draw.entropies is None else _pack("f", draw.entropies),
        "given": [list(span) for span in draw.given],
    }


def _unpack_draw(body: dict[str, Any]) -> Draw:
    sampling, likelihoods, entropies = body["sampling_logprobs"], body.get("step_likelihoods"), body.get("entropies")
    return Draw(
        parent=None if body["parent"] is None else _natural(body["parent"]),
        cut=_natural(body["cut"]),
        token_ids=_token_ids(_unpack("i", body["token_ids"])),
        logprobs=_finite(_unpack("f", body["logprobs"])),
        sampling_logprobs=None if sampling is None else _finite(_unpack("f", sampling)),
        step_ends=_unpack("i", body["step_ends"]),
        spans=tuple(map(_unpack_span, body["spans"])),
        finish=Finish(body["finish"]),
        reward=body["reward"],
        final_answer=_text(body.get("final_answer")),  # trees of earlier releases have none of the four
        step_likelihoods=None if likelihoods is None else _unpack("f", likelihoods),
        entropies=None if entropies is None else _finite(_unpack("f", entropies)),
        given=tuple((_natural(start), _natural(end)) for start, end in body.get("given", ())),
    )


def _pack_span(span: VersionSpan) -> list[int | str]:
    version = span.version
    return [version.generation, version.number, version.origin, span.start, span.end]


def _unpack_span(packed: list[Any]) -> VersionSpan:
    generation, number, origin, start, end = packed
    if not isinstance(origin, str):
        raise ValueError(f"an origin is text, not {origin!r}")
    return VersionSpan(WeightVersion(_natural(generation), _natural(number), origin), _natural(start), _natural(end))


def _text(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ValueError(f"a final answer is text, not {value!r}")
    return value


def _natural(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"a natural number is wanted, not {value!r}")
    return value


def _token_ids(values: tuple[int, ...]) -> tuple[int, ...]:
    if min(values, default=0) < 0:
        raise ValueError(f"a token id is a natural number, not {min(values)}")
    return values


def _finite(values: tuple[float, ...]) -> tuple[float, ...]:
    if not all(map(isfinite, values)):
        raise ValueError("a log-probability or an entropy is a finite number, here one is not")
    return values
