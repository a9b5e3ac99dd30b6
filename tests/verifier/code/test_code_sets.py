"""Public sets: every canonical solution is accepted, every planted bug refused."""

import ast
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.verifier.checks.code.check import CodeCheck
from services.verifier.checks.code.needs import find_needs
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


# Canonical solutions that their own tests refuse anywhere, or only here, and why.
REFUSED_CLASSES = {
    "ClassEval_17": "the tests expect that 2024 has not come",
    "ClassEval_20": "the tests expect that no second begins while they run",
    "ClassEval_35": "it searches for about as long as the limit",
    "ClassEval_48": "the tests expect the name of their author's machine",
    "ClassEval_58": "the tests expect mines where chance put none",
}
CLASS_PARTS = [
    pytest.param(slice(None, None, 11), id="some"),
    pytest.param(slice(None), marks=pytest.mark.slow, id="all"),
]


def _classeval(row: dict[str, Any], code: str = "") -> VerdictItem:
    tests = {"type": "unittest", "test": row["test"]}
    return code_item(f"```python\n{code or row['code']}\n```", tests, **find_needs(row["code"]))


def _leetcode(row: dict[str, Any], code: str = "") -> VerdictItem:
    key = {"test": row["test"], "entry_point": row["entry_point"], **find_needs(row["code"])}
    return VerdictItem(id=row["id"], kind="code", response=f"```python\n{code or row['code']}\n```", answer_key=key)


@pytest.mark.parametrize("part", CLASS_PARTS)
async def test_classes_are_accepted_or_unjudged_for_want_of_packages(check: CodeCheck, part: slice) -> None:
    rows = rows_of("classeval.jsonl.gz")[part]
    judgements = await judge_items(check, [_classeval(row) for row in rows])
    charged = {row["id"]: each.reason for row, each in zip(rows, judgements, strict=True) if each.reward == 0.0}
    assert charged.keys() <= REFUSED_CLASSES.keys(), charged
    accepted = sum(judgement.outcome is Outcome.RIGHT for judgement in judgements)
    assert accepted >= 0.8 * len(rows)


@pytest.mark.parametrize("part", CLASS_PARTS)
async def test_methods_of_leetcode_are_accepted(check: CodeCheck, part: slice) -> None:
    rows = rows_of("leetcode.jsonl.gz")[part]
    judgements = await judge_items(check, [_leetcode(row) for row in rows])
    refused = {row["id"]: each for row, each in zip(rows, judgements, strict=True) if each.outcome is not Outcome.RIGHT}
    assert all(each.reward is None and "sortedcontainers" in each.reason for each in refused.values()), refused
    assert len(refused) <= 0.03 * len(rows)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["leetcode", "classeval"])
async def test_a_planted_bug_is_refused_where_the_set_s_own_tests_refuse_it(
    check: CodeCheck, name: str, tmp_path: Path
) -> None:
    rng = random.Random(1)
    rows = [row for row in rows_of(f"{name}.jsonl.gz") if row["id"] not in REFUSED_CLASSES]
    mutants = [(row, code) for row in rows for code in _mutate(row["code"], rng)]
    make = _leetcode if name == "leetcode" else _classeval
    judgements = await judge_items(check, [make(row, code) for row, code in mutants])
    accepted = [each for each, judgement in zip(mutants, judgements, strict=True) if judgement.reward]
    assert len(accepted) < len(mutants) / 4
    assert [row["id"] for row, code in accepted if not _passes_by_itself(row, code, tmp_path)] == []


def _passes_by_itself(row: dict[str, Any], code: str, folder: Path) -> bool:
    """Whether plain Python, with answer and tests in one process, accepts it too: then the tests do not see the bug."""
    names = "from typing import *\nfrom collections import *\nfrom itertools import *\nfrom functools import *\n"
    names += "from heapq import *\nfrom bisect import *\nfrom math import *\nfrom string import *\n"
    names += "import bisect, collections, functools, heapq, itertools, math, random, re, string\n"
    run = f"check({row['entry_point']})" if "entry_point" in row else "unittest.main()"
    program = f"{names}{code}\n{row['test']}\n{run}"
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, timeout=60, check=False)
    return done.returncode == 0


_SWAPPED: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv,
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
}  # fmt: skip


def _mutate(code: str, rng: random.Random) -> Iterator[str]:
    """The code with one constant off by one, one operator swapped, or one result None."""
    tree = ast.parse(code)
    places = list(filter(_can_change, ast.walk(tree)))
    if places:
        _change(rng.choice(places))
        yield ast.unparse(tree)


def _can_change(node: ast.AST) -> bool:
    match node:
        case ast.Constant(value=int()) | ast.Return(value=ast.expr()):
            return True
        case ast.BinOp(op=operator) | ast.Compare(ops=[operator, *_]):
            return type(operator) in _SWAPPED
        case _:
            return False


def _change(node: ast.AST) -> None:
    match node:
        case ast.Constant(value=value):
            node.value = not value if isinstance(value, bool) else int(str(value)) + 1
        case ast.Return():
            node.value = ast.Constant(None)
        case ast.BinOp():
            node.op = _SWAPPED[type(node.op)]()  # type: ignore[assignment]
        case ast.Compare():
            node.ops[0] = _SWAPPED[type(node.ops[0])]()  # type: ignore[call-overload]
