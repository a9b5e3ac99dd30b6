"""Multiple choice and exact text."""

import asyncio
from typing import Any

import pytest

from services.verifier.checks.check import Judgement
from services.verifier.checks.choice import ChoiceCheck
from services.verifier.checks.exact import ExactCheck
from shared.errors import InvalidInput
from shared.protocol.verdict import Outcome, VerdictItem


def _judge(check: ChoiceCheck | ExactCheck, response: str, **answer_key: Any) -> Outcome:
    item = VerdictItem(id="1", kind=check.kind, response=response, answer_key=answer_key)
    judgements: list[Judgement] = []
    asyncio.run(check.judge([check.prepare(item)], lambda _, judgement: judgements.append(judgement)))  # type: ignore[list-item]
    return judgements[0].outcome


@pytest.mark.parametrize(
    ("response", "gold"),
    [
        (r"\boxed{B}", "B"),
        (r"\boxed{b}", "(B)"),
        (r"\boxed{\text{(B)}}", "B"),
        (r"\boxed{\textbf{B}}", "B"),
        (r"\boxed{B. Paris}", "B"),
        (r"\boxed{(B) Paris}", "B"),
        (r"\boxed{(B) vitamin C}", "B"),
        (r"\boxed{\text{B) } \frac{1}{2}}", "B"),
        (r"\boxed{A, C}", "C, A"),
        (r"\boxed{A} and \boxed{C}", "A,C"),
        (r"\boxed{AC}", "A, C"),
        ("B", "B"),
        ("So it is this.\n(B)", "B"),
        ("The answer is (B).", "B"),
        ("Reasons.\nAnswer: **B**", "B"),
        ("<think>A or B?</think>\nThe correct option is B", "B"),
    ],
)
def test_a_chosen_letter_is_right(response: str, gold: str) -> None:
    assert _judge(ChoiceCheck(), response, gold=gold) is Outcome.RIGHT


@pytest.mark.parametrize(
    ("response", "gold"),
    [
        (r"\boxed{C}", "B"),
        (r"\boxed{A, B, C, D}", "B"),
        (r"\boxed{AB}", "B"),
        (r"\boxed{A} or \boxed{B}", "B"),
        (r"\boxed{A or B}", "B"),
        (r"\boxed{Beta}", "B"),
        (r"\boxed{A}", "A, C"),
        (r"\boxed{(A) or (B)}", "A"),
        (r"\boxed{A. or B}", "A"),
        (r"\boxed{A) maybe, or (C) instead}", "A"),
        ("Answer: AB", "B"),
    ],
)
def test_hedged_and_other_letters_are_wrong(response: str, gold: str) -> None:
    assert _judge(ChoiceCheck(), response, gold=gold) is Outcome.WRONG


@pytest.mark.parametrize(
    "response",
    ["", "The answer is A or B.", "I think that B is nice, and A is not so bad", r"<think>\boxed{B}", r"\boxed{}"],
)
def test_no_letter_is_no_answer(response: str) -> None:
    assert _judge(ChoiceCheck(), response, gold="B") is Outcome.NO_ANSWER


@pytest.mark.parametrize("gold", ["", "Paris is it", "1", "()"])
def test_a_gold_that_is_no_letter_is_refused(gold: str) -> None:
    with pytest.raises(InvalidInput, match="item '1'"):
        _judge(ChoiceCheck(), "B", gold=gold)


def test_exact_text_is_compared_by_its_words() -> None:
    assert _judge(ExactCheck(), "<think>no</think>\n hello   world\n", gold="hello world") is Outcome.RIGHT
    assert _judge(ExactCheck(), "Hello world", gold="hello world") is Outcome.WRONG
    assert _judge(ExactCheck(), "Hello world", gold="hello world", ignore_case=True) is Outcome.RIGHT
    assert _judge(ExactCheck(), "<think>hello world", gold="hello world") is Outcome.NO_ANSWER
    assert _judge(ExactCheck(), " \n", gold="hello world") is Outcome.NO_ANSWER
