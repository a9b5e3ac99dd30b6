"""Judging without a service, and the rows of test data."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from services.verifier.checks.final_answer import DEFAULT, extract_final_answer
from services.verifier.checks.math.comparing.equivalence import Equivalence
from services.verifier.checks.math.decision import Decision, decide
from services.verifier.checks.math.reading.parsed_answer import extract_gold, parse_answer
from services.verifier.config import Extraction

DATA = Path(__file__).parent / "data"
LONGEST = 10_000


def rows_of(name: str) -> list[dict[str, Any]]:
    """The rows of a file in tests/verifier/data."""
    path = DATA / name
    text = gzip.decompress(path.read_bytes()).decode() if path.suffix == ".gz" else path.read_text()
    return [json.loads(line) for line in text.splitlines()]


def find(gold: str, response: str, extraction: Sequence[Extraction] = DEFAULT) -> Decision | None:
    """What is decided without workers; None where no answer is stated."""
    text = extract_gold(gold, LONGEST)
    assert text is not None, f"no gold in {gold!r}"
    answer = extract_final_answer(response, LONGEST, extraction)
    return None if answer is None else decide(parse_answer(text), answer)


def is_right(gold: str, response: str) -> bool:
    """Whether a response is found right without workers."""
    found = find(gold, response)
    return found is not None and found.equivalence is Equivalence.SAME
