"""Writes the demo's data sets: JSON lines of problems that the verifier judges as math."""

import random
from collections.abc import Iterator
from pathlib import Path

from services.demo.difficulty import Difficulty
from services.demo.expressions import Expression, evaluate, prompt_of
from services.demo.split import Split, generate_in
from shared.errors import InvalidInput
from shared.protocol.task import Problem

_TRIES_PER_PROBLEM = 200


def write_data(directory: Path, difficulty: Difficulty, num_train: int, num_heldout: int, seed: int) -> None:
    """Writes train.jsonl and heldout.jsonl there: all problems differ, and equal arguments give equal files.

    InvalidInput when the difficulty has too few different expressions.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for split, count in ((Split.TRAIN, num_train), (Split.HELD_OUT, num_heldout)):
        rng = random.Random(f"{seed} {split}")
        lines = [problem.model_dump_json() + "\n" for problem in _generate_problems(split, rng, difficulty, count)]
        (directory / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")


def _generate_problems(split: Split, rng: random.Random, difficulty: Difficulty, count: int) -> Iterator[Problem]:
    for index, expression in enumerate(_generate_distinct(split, rng, difficulty, count)):
        gold = str(evaluate(expression, difficulty.modulus))
        yield Problem(id=f"{split}-{index:06d}", prompt=prompt_of(expression), kind="math", answer_key={"gold": gold})


def _generate_distinct(split: Split, rng: random.Random, difficulty: Difficulty, count: int) -> tuple[Expression, ...]:
    found: dict[Expression, None] = {}
    for _ in range(_TRIES_PER_PROBLEM * count):
        if len(found) == count:
            break
        found[generate_in(split, rng, difficulty)] = None
    if len(found) < count:
        raise InvalidInput(
            f"only {len(found)} different {split} expressions of lengths {difficulty.lengths} were found, not {count}; "
            "ask for fewer or add a length"
        )
    return tuple(found)
