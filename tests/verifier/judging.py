"""Judging without a service, and the rows of test data."""

import gzip
import json
from pathlib import Path
from typing import Any

from services.verifier.checks.final_answer import final_answer
from services.verifier.checks.math.comparing.likeness import Likeness
from services.verifier.checks.math.reading.answer import read
from services.verifier.checks.math.reading.gold import gold_text
from services.verifier.checks.math.verdict import Finding, decide

DATA = Path(__file__).parent / "data"
LONGEST = 10_000


def rows_of(name: str) -> list[dict[str, Any]]:
    """The rows of a file in tests/verifier/data."""
    path = DATA / name
    text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()
    return [json.loads(line) for line in text.splitlines()]


def find(gold: str, response: str) -> Finding | None:
    """What is decided without workers; None where no answer is stated."""
    text = gold_text(gold, LONGEST)
    assert text is not None, f"no gold in {gold!r}"
    answer = final_answer(response, LONGEST)
    return None if answer is None else decide(read(text), answer)


def is_right(gold: str, response: str) -> bool:
    """Whether a response is found right without workers."""
    found = find(gold, response)
    return found is not None and found.likeness is Likeness.SAME
