"""Which expressions are held out: a hash of the text decides, so the sets cannot meet, whatever seeds and sizes."""

import hashlib
import random
from enum import StrEnum

from services.demo.difficulty import Difficulty
from services.demo.expressions import Expression, generate, render
from shared.errors import InvalidInput

_HELD_OUT_ONE_IN = 8
_MAX_DRAWS = 1000  # where one in eight is held out, this many draws miss with a chance of 1e-58


class Split(StrEnum):
    """The side of the division that an expression is on."""

    TRAIN = "train"
    HELD_OUT = "heldout"


def split_of(expression: Expression) -> Split:
    """The one split that this expression belongs to, in every process and release."""
    digest = hashlib.blake2b(render(expression).encode(), digest_size=8, person=b"ibtpo demo").digest()
    return Split.HELD_OUT if int.from_bytes(digest, "little") % _HELD_OUT_ONE_IN == 0 else Split.TRAIN


def generate_in(split: Split, rng: random.Random, difficulty: Difficulty) -> Expression:
    """Draws one expression of the split. Raises InvalidInput at a difficulty that has none there."""
    for _ in range(_MAX_DRAWS):
        expression = generate(rng, difficulty)
        if split_of(expression) is split:
            return expression
    raise InvalidInput(
        f"no {split} expression among {_MAX_DRAWS} of {difficulty}; add a length, a digit or an operator"
    )
