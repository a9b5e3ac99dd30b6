"""Which expressions are held out. A hash of the text decides, so the sets are disjoint for all seeds and sizes."""

import hashlib
import random
from enum import StrEnum

from services.demo.difficulty import Difficulty
from services.demo.expressions import Expression, generate, render
from shared.errors import InvalidInput

_HELD_OUT_ONE_IN = 8
_MAX_TRIES = 1000  # with one in eight held out, all of these miss with probability 1e-58


class Split(StrEnum):
    TRAIN = "train"
    HELD_OUT = "heldout"


def split_of(expression: Expression) -> Split:
    """The split of this expression, the same in every process and release."""
    digest = hashlib.blake2b(render(expression).encode(), digest_size=8, person=b"ibtpo demo").digest()
    return Split.HELD_OUT if int.from_bytes(digest, "little") % _HELD_OUT_ONE_IN == 0 else Split.TRAIN


def generate_in(split: Split, rng: random.Random, difficulty: Difficulty) -> Expression:
    """A random expression of the split. InvalidInput for a difficulty that has none."""
    for _ in range(_MAX_TRIES):
        expression = generate(rng, difficulty)
        if split_of(expression) is split:
            return expression
    raise InvalidInput(
        f"no {split} expression among {_MAX_TRIES} of {difficulty}; add a length, a digit or an operator"
    )
