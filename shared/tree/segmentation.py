"""Finds where the steps of a trajectory end, from the bytes of its tokens."""

from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum
from itertools import chain, islice


class _State(IntEnum):
    """What the step contains so far. After a CLOSED step the next token begins a BLANK one."""

    BLANK = 0
    """Nothing but white space."""
    TEXT = 1
    NEWLINE = 2
    """Text, and after it one newline and perhaps blanks."""
    CLOSED = 3
    """Text, and a blank line after it; the rest of the token belongs to the closed step."""


_WHITE_SPACE = b" \t\n\r\v\f"
_NEWLINE = ord("\n")


def _after_byte(state: _State, byte: int) -> _State:
    match state:
        case _State.BLANK:
            return _State.BLANK if byte in _WHITE_SPACE else _State.TEXT
        case _State.TEXT:
            return _State.NEWLINE if byte == _NEWLINE else _State.TEXT
        case _State.NEWLINE if byte == _NEWLINE:
            return _State.CLOSED
        case _State.NEWLINE:
            return _State.NEWLINE if byte in _WHITE_SPACE else _State.TEXT
        case _State.CLOSED:
            return _State.CLOSED


def _after_token(state: _State, token: bytes) -> _State:
    if _NEWLINE not in token and token.strip(_WHITE_SPACE):
        return _State.TEXT
    for byte in token:
        state = _after_byte(state, byte)
    return state


class Segmenter:
    """Finds step ends with a table over one tokenizer's tokens; it decodes and encodes nothing.

    A step closes at the token in which a blank line, of nothing or of blanks, follows its text, at a token of
    `eos_ids`, and at the end. Ids beyond the table (rows that pad an embedding) count as text.
    """

    def __init__(self, bytes_of_token: Sequence[bytes], eos_ids: frozenset[int]) -> None:
        self._after: list[bytes] = [self._row(state, bytes_of_token, eos_ids) for state in list(_State)[:-1]]
        self._after.append(self._after[_State.BLANK])
        self._num_tokens = len(bytes_of_token)

    @staticmethod
    def _row(state: _State, bytes_of_token: Sequence[bytes], eos_ids: frozenset[int]) -> bytes:
        """The state after each token, from `state` before it."""
        row = bytearray(_after_token(state, token) for token in bytes_of_token)
        for eos_id in eos_ids:
            row[eos_id] = _State.CLOSED
        return bytes(row)

    def step_ends(self, prefix_ids: Sequence[int], new_ids: Sequence[int]) -> tuple[int, ...]:
        """Where steps end within `new_ids`, which continue `prefix_ids`: positions counted from the prompt's end.

        The last is the total length. Segmenting a trajectory in parts gives the ends of segmenting it at once.
        """
        total = len(prefix_ids) + len(new_ids)
        states = islice(self._states(chain(prefix_ids, new_ids)), len(prefix_ids), None)
        ends = [end for end, state in enumerate(states, len(prefix_ids) + 1) if state == _State.CLOSED]
        return tuple(ends if ends and ends[-1] == total else [*ends, total])

    def _states(self, token_ids: Iterable[int]) -> Iterator[int]:
        """The state after each token."""
        after, num_tokens = self._after, self._num_tokens
        state: int = _State.BLANK
        for token in token_ids:
            state = after[state][token] if token < num_tokens else _State.TEXT
            yield state
