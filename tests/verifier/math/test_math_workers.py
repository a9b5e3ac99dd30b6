"""What exact and numeric comparison leave open is judged by math-verify's workers, safely."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from prometheus_client import CollectorRegistry

from services.verifier.checks.check import Judgement
from services.verifier.checks.math.check import MathCheck, open_math_check
from services.verifier.config import MathConfig
from services.verifier.metrics import VerifierMetrics
from shared.errors import InvalidInput
from shared.protocol.verdict import ItemLimits, Outcome, VerdictItem
from tests.verifier.judging import rows_of

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def check() -> AsyncIterator[MathCheck]:
    config = MathConfig(workers=1, item_seconds=20)
    async with open_math_check(config, VerifierMetrics(CollectorRegistry())) as started:
        yield started


async def _judge(check: MathCheck, gold: str, response: str, seconds: float | None = None) -> Judgement:
    limits = ItemLimits(wall_seconds=seconds) if seconds else None
    item = VerdictItem(id="1", kind="math", response=response, answer_key={"gold": gold}, limits=limits)
    judgements: list[Judgement] = []
    await check.judge([check.prepare(item)], lambda _, judgement: judgements.append(judgement))
    (judgement,) = judgements
    return judgement


@pytest.mark.parametrize(
    ("gold", "answer", "is_right"),
    [
        (r"\sum_{k=1}^{n} k + 1", r"1 + \sum_{k=1}^{n} k", True),
        (r"\sum_{k=1}^{n} k + 1", r"2 + \sum_{k=1}^{n} k", False),
        (r"\mathbb{R}\setminus\{a\}", r"(-\infty,b)\cup(b,\infty)", False),
        (r"F_n = \sum_{k=0}^{n-1} F_k", r"F_n = \sum_{k=0}^{n-2} F_k", False),
        ("|x|", "x", False),
        ("x", r"\sqrt{x^2}", False),
        ("200203_{-4}", "200203_{-5}", False),
    ],
)
async def test_a_worker_decides(check: MathCheck, gold: str, answer: str, is_right: bool) -> None:
    judgement = await _judge(check, gold, rf"\boxed{{{answer}}}")
    assert judgement.rule == "math-verify"
    assert judgement.outcome is (Outcome.RIGHT if is_right else Outcome.WRONG), judgement
    assert judgement.final_answer == answer


async def test_the_open_expectations_of_math_verify_are_met(check: MathCheck) -> None:
    open_rows = {
        "test_all::test_math_extraction_edge_cases[4]": False,
        "test_open_thoughts::test_open_thoughts[23]": True,
        "test_open_thoughts::test_open_thoughts[25]": True,
        "test_open_thoughts::test_open_thoughts[26]": True,
        "test_yujianll::test_string_extraction[4]": False,
    }
    found = {}
    for row in rows_of("math_verify_expectations.jsonl.gz"):
        if row["id"] in open_rows:
            prediction = row["pred"] if "\\boxed" in row["pred"] else rf"\boxed{{{row['pred']}}}"
            found[row["id"]] = (await _judge(check, row["gold"], prediction)).outcome is Outcome.RIGHT
    assert found == open_rows


async def test_an_answer_that_does_not_end_is_ended_at_its_limit(check: MathCheck) -> None:
    await _judge(check, "|x|", r"\boxed{x}")  # a worker is warm
    start = time.monotonic()
    judgement = await _judge(check, r"\sum_{n=1}^{9} n", r"\boxed{\sum_{n=1}^{10^9} \frac{1}{n^3+\sin(n)}}", seconds=1)
    assert time.monotonic() - start < 10
    assert judgement.outcome in (Outcome.TIMED_OUT, Outcome.INFRASTRUCTURE)
    assert not judgement.reward


async def test_it_does_not_start_where_gmpy2_can_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gmpy2.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(InvalidInput, match="uninstall gmpy2"):
        async with open_math_check(MathConfig(), VerifierMetrics(CollectorRegistry())):
            pass


async def test_without_workers_what_is_open_has_no_reward() -> None:
    async with open_math_check(MathConfig(workers=0), VerifierMetrics(CollectorRegistry())) as alone:
        assert (await _judge(alone, "|x|", r"\boxed{x}")).reward is None
        assert (await _judge(alone, "4", r"\boxed{4}")).reward == 1.0
