"""Hostile code is never rewarded, honest code never refused, and nothing is left behind."""

from pathlib import Path

import pytest

from services.verifier.checks.code.check import CodeCheck
from shared.errors import InvalidInput
from shared.protocol.verdict import Outcome
from tests.verifier.code.judging import code_item, judge_code, judge_items, stdio
from tests.verifier.judging import rows_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECONDS = 1.0
DOUBLE = stdio(("21\n", "42\n"), ("5\n", "10\n"), ("-3\n", "-6\n"))
OWNED = stdio(("", "owned\n"))


async def test_the_rows_of_attacks_get_the_verdicts_they_are_owed(check: CodeCheck) -> None:
    items, expected = [], []
    for row in rows_of("code_attacks.jsonl.gz"):
        item = code_item(row["payload"], row["tests"], seconds=SECONDS)
        try:
            check.prepare(item)
        except InvalidInput:
            assert row["expected"] == "reject"
            continue
        items.append(item)
        expected.append((row["id"], row["expected"] == "accept"))
    judgements = await judge_items(check, items)
    rewarded = [(name, judgement.reward == 1.0) for (name, _), judgement in zip(expected, judgements, strict=True)]
    assert rewarded == expected
    assert all(judgement.reward is not None and judgement.isolated for judgement in judgements)
    assert all(judgement.seconds < SECONDS + 10 for judgement in judgements)
    assert not [*Path("/tmp").glob("VERIFIER*")]


# Programs that would pass if a harness believed what they say of themselves.
LIARS = {
    "prints what it read": ("print(input())", DOUBLE),
    "reads the outputs from memory": (
        "import gc, re\nn = int(input())\nfor o in gc.get_objects():\n    if isinstance(o, dict) and 'output' in o:\n"
        "        print(o['output'])",
        DOUBLE,
    ),
    "prints to errors": ("import sys\nprint(int(input()) * 2, file=sys.stderr)", DOUBLE),
    "right, then crashes": ("print(int(input()) * 2)\n1 / 0", DOUBLE),
    "right, then exits with an error": ("print(int(input()) * 2)\nexit(3)", DOUBLE),
    "right, then dies of a violation": (
        "import ctypes\nprint(int(input()) * 2, flush=True)\nctypes.CDLL(None).unshare(0)",
        DOUBLE,
    ),
    "right, then never ends": ("print(int(input()) * 2, flush=True)\nwhile True: pass", DOUBLE),
    "right, then floods": ("print(int(input()) * 2)\nwhile True: print()", DOUBLE),
    "right, then overwritten": (
        "import os\nprint(int(input()) * 2, flush=True)\nos.lseek(1, 0, 0)\nos.write(1, b'99')",
        DOUBLE,
    ),
    "right in the first case only": (
        "n = int(input())\nprint(42 if n == 21 else 0)",
        DOUBLE,
    ),
    "every answer by carriage return": ("n = int(input())\nprint('0\\r%d' % (n * 2))", DOUBLE),
    "every answer with null bytes": ("n = int(input())\nprint('\\0%d' % (n * 2))", DOUBLE),
    "full width digits": (
        "n = int(input())\nprint(str(n * 2).translate({48 + i: 0xFF10 + i for i in range(10)}))",
        DOUBLE,
    ),
    "more memory than allowed": ("x = [0] * 10**10\nprint(int(input()) * 2)", DOUBLE),
    "input never ends": ("import sys\nwhile True: sys.stdin.read(); sys.stdin.seek(0)", DOUBLE),
    "no newline flood": ("import sys\nwhile True: sys.stdout.write('4' * 1000000)", DOUBLE),
    "nothing": ("pass", DOUBLE),
}


@pytest.mark.parametrize("name", LIARS)
async def test_a_program_is_believed_in_nothing_but_its_output(check: CodeCheck, name: str) -> None:
    response, tests = LIARS[name]
    judgement = await judge_code(check, response, tests, seconds=SECONDS)
    assert judgement.reward == 0.0, judgement
    assert judgement.seconds < SECONDS + 10


async def test_two_hundred_thousand_numbers_are_read(check: CodeCheck) -> None:
    numbers = " ".join(map(str, range(200_000)))
    tests = stdio((numbers, f"{sum(range(200_000))}\n"))
    response = "import sys\nprint(sum(map(int, sys.stdin.buffer.read().split())))"
    assert (await judge_code(check, response, tests)).reward == 1.0


async def test_partial_credit_is_the_share_of_cases(check: CodeCheck) -> None:
    judgement = await judge_code(check, "n = int(input())\nprint(n * 2 if n > 0 else 0)", DOUBLE, partial_credit=True)
    assert (judgement.reward, judgement.outcome) == (pytest.approx(2 / 3), Outcome.WRONG)
    assert judgement.reason == "case 3: the output differs (2 of 3 cases passed)"
    assert (await judge_code(check, "print(int(input()) * 2)", DOUBLE, partial_credit=True)).reward == 1.0


async def test_the_cases_of_an_item_share_its_time(check: CodeCheck) -> None:
    tests = stdio(*[("1\n", "2\n")] * 20)
    judgement = await judge_code(check, "import time\ntime.sleep(0.2)\nprint(2)", tests, seconds=1.0)
    assert (judgement.outcome, judgement.reward) == (Outcome.TIMED_OUT, 0.0), "each by itself takes 0.2 s"


@pytest.mark.parametrize("response", ["\x00", "💥", "x" * 10_000, "(" * 10_000, "-" * 50_000 + "1"])
async def test_any_text_as_a_program_is_judged(check: CodeCheck, response: str) -> None:
    assert (await judge_code(check, response, OWNED, seconds=SECONDS)).reward == 0.0
