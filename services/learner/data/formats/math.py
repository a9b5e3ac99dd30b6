r"""Formats of mathematical problems: GSM8K, MATH and its like, AIME, AMC."""

import re
from collections.abc import Callable
from typing import Any

from services.learner.data.formats.base import ConvertedRow, Format, Unusable, first_of, gold_of, kept, text_of
from services.learner.data.reading.rows import Row

_BOX = re.compile(r"\\(?:boxed|fbox)\s*")
_EMPTY_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{\s*\}")
_NO_ANSWERS = frozenset({"proof", "notfound", "not found", "none", "nan", "n/a", "null", "unknown"})
"""What sets such as NuminaMath write where a problem has no final answer."""
_HASHES = re.compile(r"^#### *(.+?) *$", re.MULTILINE)
_QUESTION = ("problem", "question", "Problem", "Question")
_ANSWER = ("answer", "Answer", "final_answer")
_SOLUTION = ("solution", "Solution")
_KEPT = (
    "level",
    "subject",
    "type",
    "source",
    "year",
    "Year",
    "url",
    "unique_id",
    "domain",
    "difficulty",
    "data_source",
)
_OPTIONS = ("choices", "options", "Incorrect Answer 1", "distractor1")
MAX_ANSWER = 1000
"""A longer text is a solution, no answer."""


def last_boxed(text: str) -> str | None:
    r"""What the last \boxed{…} of a text holds; None where there is none that closes."""
    for found in reversed(list(_BOX.finditer(text))):
        if (inside := _in_braces(text, found.end())) is not None:
            return inside.strip()
    return None


def _in_braces(text: str, start: int) -> str | None:
    if text[start : start + 1] != "{":
        bare = re.match(r"[^\s{}$\\.,]+", text[start:])  # MATH has a few of \boxed 7
        return bare[0] if bare else None
    depth, position = 0, start
    while position < len(text):
        character = text[position]
        if character == "\\":
            position += 1
        elif character in "{}":
            depth += 1 if character == "{" else -1
            if depth == 0:
                return text[start + 1 : position]
        position += 1
    return None


def _math(question: str, gold: str, row: Row) -> ConvertedRow:
    if _EMPTY_BOX.search(gold):
        raise Unusable("an empty box as gold")
    if gold.lower() in _NO_ANSWERS:
        raise Unusable(f"its answer is {gold.lower()!r}, which states none")
    return ConvertedRow(question, "math", {"gold": gold}, kept(row, *_KEPT))


def _has_hashes(row: Row) -> bool:
    return isinstance(row.get("question"), str) and bool(_HASHES.search(str(row.get("answer"))))


def _gsm8k(row: Row) -> ConvertedRow:
    found = _HASHES.findall(text_of(row, "answer"))
    if not found:
        raise Unusable("no line `#### …` in answer")
    gold = gold_of(found[-1].replace(",", ""))
    return _math(text_of(row, "question"), gold, row)


def _has_boxed_solution(row: Row) -> bool:
    solution = first_of(row, *_SOLUTION)
    return (
        bool(first_of(row, *_QUESTION))
        and first_of(row, *_ANSWER) is None
        and isinstance(solution, str)
        and last_boxed(solution) is not None
    )


def _boxed_solution(row: Row) -> ConvertedRow:
    gold = last_boxed(text_of(row, *_SOLUTION))
    if not gold:
        raise Unusable(r"no \boxed{…} in solution")
    return _math(text_of(row, *_QUESTION), gold, row)


def _is_answer(value: Any) -> bool:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return True
    return isinstance(value, str) and bool(value.strip()) and len(value) <= MAX_ANSWER


def _has_stated_answer(row: Row) -> bool:
    """Question and answer beside each other, and nothing that makes them another format's."""
    if any(name in row for name in _OPTIONS) or all(letter in row for letter in "ABCD") or _has_hashes(row):
        return False
    return isinstance(first_of(row, *_QUESTION), str) and _is_answer(first_of(row, *_ANSWER))


def _stated_answer(row: Row) -> ConvertedRow:
    answer = gold_of(first_of(row, *_ANSWER))
    gold = last_boxed(answer) or answer
    if len(gold) > MAX_ANSWER:
        raise Unusable("answer is a whole solution")
    return _math(_question(row), gold, row)


def _question(row: Row) -> str:
    """The question, behind the text that it is about (SVAMP)."""
    asked, body = text_of(row, *_QUESTION), row.get("Body")
    return f"{body.strip()} {asked}" if isinstance(body, str) and body.strip() else asked


def _integer_answer(row: Row) -> ConvertedRow:
    """AIME and AMC: the answer is a number, or in the box of the solution."""
    if first_of(row, *_ANSWER) is None:
        return _boxed_solution(row)
    converted = _stated_answer(row)
    number = re.fullmatch(r"\$?\s*0*(\d+)(?:\.0*)?\s*(?:\\?°|\^\\circ)?\$?", converted.answer_key["gold"])
    if not number:
        return converted
    return _math(text_of(row, *_QUESTION), number[1], row)


def _never(row: Row) -> bool:
    """Not found by columns: its rows are those of another format, which reads them as well."""
    return False


def _named(name: str, sets: str, convert: Callable[[Row], ConvertedRow]) -> Format:
    return Format(name, sets, "problem or question; answer, or solution", _never, convert)


MATH_FORMATS = (
    Format("gsm8k", "openai/gsm8k", "question; answer, whose last line is `#### 18`", _has_hashes, _gsm8k),
    Format(
        "math",
        "hendrycks MATH, NuminaMath-CoT, math-ai/aime24",
        r"problem; solution, whose last \boxed{…} is the gold",
        _has_boxed_solution,
        _boxed_solution,
    ),
    Format(
        "math-answer",
        "MATH-500, DeepScaleR, OpenR1-Math, NuminaMath-1.5, DeepMath",
        "problem or question; answer or final_answer",
        _has_stated_answer,
        _stated_answer,
    ),
    _named("aime", "AIME 1983-2025 in its several copies", _integer_answer),
    _named("amc", "AI-MO/aimo-validation-amc, math-ai/amc23", _integer_answer),
)
