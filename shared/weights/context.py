"""How long a trajectory a model's configuration allows."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_POSITIONS = (
    "max_position_embeddings",
    "n_positions",
    "max_seq_len",
    "seq_length",
    "max_sequence_length",
    "context_length",
    "n_ctx",
)
_WINDOWS = ("sliding_window", "attention_chunk_size", "attention_window_size")
_LENGTH_DEPENDENT = ("longrope", "su", "dynamic")
"""Rotary embeddings whose factors change for a whole batch when its longest sequence passes the original length."""


@dataclass(frozen=True, slots=True)
class ContextBounds:
    """In tokens, prompt included; None where the configuration does not say.

    `positions`: up to where the model computes every sequence by itself. `window`: up to where a token attends to all
    before it.
    """

    positions: int | None
    window: int | None

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "ContextBounds":
        """Of a configuration as transformers writes it."""
        text_config = config.get("text_config")
        table = text_config if isinstance(text_config, Mapping) else config
        positions = [*_positive(table, _POSITIONS)[:1], *_original_lengths(table)]
        return cls(min(positions, default=None), min(_positive(table, _WINDOWS), default=None))

    def context_length(self, wanted: int | None = None, *, through_windows: bool = False) -> int | None:
        """The least of all bounds, and of `wanted`; without the window where answers may pass through it."""
        bounds = (wanted, self.positions, None if through_windows else self.window)
        return min((bound for bound in bounds if bound is not None), default=None)


def _positive(table: Mapping[str, Any], names: tuple[str, ...]) -> list[int]:
    return [value for name in names if type(value := table.get(name)) is int and value > 0]


def _original_lengths(table: Mapping[str, Any]) -> Iterator[int]:
    for rope in _ropes(table):
        if rope.get("rope_type", rope.get("type")) in _LENGTH_DEPENDENT:
            name = ("original_max_position_embeddings",)
            yield from _positive(rope, name) or _positive(table, name)


def _ropes(table: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The tables of rotary embeddings: one, or one for each type of layer."""
    for name in ("rope_parameters", "rope_scaling"):
        rope = table.get(name)
        if isinstance(rope, Mapping):
            yield rope
            yield from (nested for nested in rope.values() if isinstance(nested, Mapping))
