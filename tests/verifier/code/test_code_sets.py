"""Public sets: every canonical solution is accepted, every planted bug refused."""

import re
from collections import Counter
from typing import Any

import pytest

from services.verifier.checks.code.check import CodeCheck
from shared.protocol.verdict import Outcome, VerdictItem
from tests.verifier.code.judging import asserts, code_item, judge_items
from tests.verifier.judging import rows_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

PARTS = [pytest.param(slice(None, None, 6), id="some"), pytest.param(slice(None), marks=pytest.mark.slow, id="all")]

# Appended to a solution: every answer is a little off.
BUG = """

def _off(value):
    if isinstance(value, bool): return not value
    if isinstance(value, (int, float)): return value + 1
    if isinstance(value, str): return value + "x"
    if isinstance(value, list): return value + [0]
    if isinstance(value, tuple): return value + (0,)
    if isinstance(value, dict): return {{**value, "x": 0}}
    if isinstance(value, set): return value | {{"x"}}
    return 0 if value is None else None

def _planted(right):
    return lambda *arguments, **keywords: _off(right(*arguments, **keywords))

{name} = _planted({name})
"""


def _humaneval(row: dict[str, Any], bug: str = "") -> VerdictItem:
    tests = {"type": "check", "entry_point": row["entry_point"], "test": row["test"]}
    return code_item(row["prompt"] + row["canonical_solution"] + bug, tests)


def _mbpp(row: dict[str, Any], bug: str = "") -> VerdictItem:
    return code_item(
        row["code"] + bug, asserts(*row["test_list"], entry_point=_tested(row), setup=row["test_setup_code"])
    )


def _tested(row: dict[str, Any]) -> str:
    """The function that the tests call."""
    words = set(re.findall(r"\w+", " ".join(row["test_list"])))
    return next(name for name in reversed(re.findall(r"def\s+(\w+)", row["code"])) if name in words)


def _planted(name: str) -> str:
    return BUG.format(name=name)


@pytest.mark.parametrize("part", PARTS)
async def test_humaneval_solutions_are_accepted(check: CodeCheck, part: slice) -> None:
    rows = rows_of("humaneval.jsonl.gz")[part]
    judgements = await judge_items(check, [_humaneval(row) for row in rows])
    assert Counter(judgement.outcome for judgement in judgements) == {Outcome.RIGHT: len(rows)}


@pytest.mark.parametrize("part", PARTS)
async def test_humaneval_bugs_are_refused(check: CodeCheck, part: slice) -> None:
    rows = rows_of("humaneval.jsonl.gz")[part]
    judgements = await judge_items(check, [_humaneval(row, _planted(row["entry_point"])) for row in rows])
    accepted = [row["task_id"] for row, judgement in zip(rows, judgements, strict=True) if judgement.reward != 0.0]
    assert accepted == []


async def test_fenced_humaneval_solutions_are_accepted(check: CodeCheck) -> None:
    items = []
    for row in rows_of("humaneval.jsonl.gz")[::8]:
        item = _humaneval(row)
        fenced = f"We go step by step.\n\n```python\n{item.response}\n```\n\nThis is O(n)."
        items.append(item.model_copy(update={"response": fenced}))
    assert {judgement.reward for judgement in await judge_items(check, items)} == {1.0}


@pytest.mark.parametrize("part", PARTS)
async def test_mbpp_solutions_are_accepted_or_unsupported(check: CodeCheck, part: slice) -> None:
    rows = rows_of("mbpp.jsonl.gz")[part]
    judgements = await judge_items(check, [_mbpp(row) for row in rows])
    outcomes = Counter(judgement.outcome for judgement in judgements)
    assert set(outcomes) <= {Outcome.RIGHT, Outcome.UNSUPPORTED}
    assert outcomes[Outcome.RIGHT] >= 0.985 * len(rows)


@pytest.mark.parametrize("part", PARTS)
async def test_mbpp_bugs_are_refused(check: CodeCheck, part: slice) -> None:
    rows = rows_of("mbpp.jsonl.gz")[part]
    judgements = await judge_items(check, [_mbpp(row, _planted(_tested(row))) for row in rows])
    accepted = [row["task_id"] for row, judgement in zip(rows, judgements, strict=True) if judgement.reward != 0.0]
    assert accepted == []
