"""Judges code items without a service, for the tests of the code check."""

from collections.abc import Sequence
from typing import Any

from services.verifier.checks.check import Judgement
from services.verifier.checks.code.check import CodeCheck
from shared.protocol.verdict import ItemLimits, VerdictItem


def code_item(response: str, tests: dict[str, Any], seconds: float | None = None, **key: Any) -> VerdictItem:
    """An item as a client would send it."""
    limits = ItemLimits(wall_seconds=seconds) if seconds else None
    return VerdictItem(id="x", kind="code", response=response, answer_key={"tests": tests, **key}, limits=limits)


async def judge_items(check: CodeCheck, items: Sequence[VerdictItem]) -> list[Judgement]:
    """The judgements in the order of the items."""
    judgements: dict[int, Judgement] = {}

    def report(position: int, judgement: Judgement) -> None:
        assert position not in judgements
        judgements[position] = judgement

    await check.judge([check.prepare(item) for item in items], report)
    return [judgements[position] for position in range(len(items))]


async def judge_code(check: CodeCheck, response: str, tests: dict[str, Any], **more: Any) -> Judgement:
    """The judgement of one response."""
    return (await judge_items(check, [code_item(response, tests, **more)]))[0]


def asserts(*tests: str, entry_point: str = "f", **more: Any) -> dict[str, Any]:
    """Assert tests."""
    return {"type": "assert", "entry_point": entry_point, "asserts": list(tests), **more}


def stdio(*cases: tuple[str, str]) -> dict[str, Any]:
    """Cases of input and output."""
    return {"type": "stdio", "cases": [{"input": given, "output": printed} for given, printed in cases]}
