"""Multiple choice and exact text."""

import asyncio
from typing import Any

import pytest

from services.verifier.checks.check import Judgement
from services.verifier.checks.choice import ChoiceCheck, find_choice
from services.verifier.checks.exact import ExactCheck
from services.verifier.config import ChoiceConfig, ExactConfig
from shared.errors import InvalidInput
from shared.protocol.verdict import Outcome, VerdictItem
from tests.verifier.judging import DATA, rows_of


def _judge(check: ChoiceCheck | ExactCheck, response: str, **answer_key: Any) -> Outcome:
    return _judgement(check, response, **answer_key).outcome


def _judgement(check: ChoiceCheck | ExactCheck, response: str, **answer_key: Any) -> Judgement:
    item = VerdictItem(id="1", kind=check.kind, response=response, answer_key=answer_key)
    judgements: list[Judgement] = []
    asyncio.run(check.judge([check.prepare(item)], lambda _, judgement: judgements.append(judgement)))  # type: ignore[list-item]
    return judgements[0]


def test_a_judgement_says_what_was_answered_so_that_answers_can_be_counted() -> None:
    choice, exact = ChoiceCheck(ChoiceConfig()), ExactCheck(ExactConfig())
    assert _judgement(choice, r"\boxed{C} and \boxed{A}", gold="B").final_answer == "A, C"
    assert _judgement(choice, "I do not know", gold="B").final_answer == ""
    assert _judgement(choice, r"\boxed{A} or B. The answer is A. Wait, no.", gold="B").final_answer == ""
    assert _judgement(exact, " New\n York ", gold="new york", ignore_case=True).final_answer == "new york"
    first, second = (_judgement(exact, "x" * 999 + end, gold="y").final_answer for end in "ab")
    assert first != second
    assert len(first or "") == 256


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
    assert _judge(ChoiceCheck(ChoiceConfig()), response, gold=gold) is Outcome.RIGHT


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
        ("The answer is A or B.", "B"),
    ],
)
def test_hedged_and_other_letters_are_wrong(response: str, gold: str) -> None:
    assert _judge(ChoiceCheck(ChoiceConfig()), response, gold=gold) is Outcome.WRONG


@pytest.mark.parametrize(
    "response",
    ["", "Is the answer B?", "I think that B is nice, and A is not so bad", r"<think>\boxed{B}", r"\boxed{}"],
)
def test_no_letter_is_no_answer(response: str) -> None:
    assert _judge(ChoiceCheck(ChoiceConfig()), response, gold="B") is Outcome.NO_ANSWER


@pytest.mark.parametrize("verdict", ["right", "wrong"])
def test_a_choice_is_what_is_stated_neither_denied_nor_hedged(verdict: str) -> None:
    """Ways of choosing, denying and hedging, in many languages."""
    check = ChoiceCheck(ChoiceConfig())
    lines = (DATA / "choices.tsv").read_text(encoding="utf-8").splitlines()
    rows = [line.replace("⏎", "\n").split("\t") for line in lines]
    judged = {(gold, response): _judge(check, response, gold=gold) for kind, gold, response in rows if kind == verdict}
    assert len(judged) > 150
    assert [row for row, outcome in judged.items() if (outcome is Outcome.RIGHT) != (verdict == "right")] == []


def test_real_answers_are_read_as_the_set_s_own_pattern_reads_them() -> None:
    """All but ten, which state several letters or list options behind the answer."""
    rows = rows_of("mmlu_pro_answers.jsonl.gz")
    read = [find_choice(row["response"], ChoiceConfig().extraction) == {row["letter"]} for row in rows]
    assert (len(read), sum(read)) == (600, 590)


@pytest.mark.parametrize("gold", ["", "Paris is it", "1", "()"])
def test_a_gold_that_is_no_letter_is_refused(gold: str) -> None:
    with pytest.raises(InvalidInput, match="item '1'"):
        _judge(ChoiceCheck(ChoiceConfig()), "B", gold=gold)


def test_exact_text_is_compared_by_its_words() -> None:
    assert _judge(ExactCheck(ExactConfig()), "<think>no</think>\n hello   world\n", gold="hello world") is Outcome.RIGHT
    assert _judge(ExactCheck(ExactConfig()), "Hello world", gold="hello world") is Outcome.WRONG
    assert _judge(ExactCheck(ExactConfig()), "Hello world", gold="hello world", ignore_case=True) is Outcome.RIGHT
    assert _judge(ExactCheck(ExactConfig()), "cafe\u0301", gold="caf\xe9") is Outcome.RIGHT
    assert _judge(ExactCheck(ExactConfig()), "<think>hello world", gold="hello world") is Outcome.NO_ANSWER
    assert _judge(ExactCheck(ExactConfig()), " \n", gold="hello world") is Outcome.NO_ANSWER


@pytest.mark.parametrize(
    ("extraction", "response", "outcome"),
    [
        ("box", r"So \boxed{hello world}.", Outcome.RIGHT),
        ("box", "hello world", Outcome.NO_ANSWER),
        ("answer_tag", "<answer>hello\nworld</answer>", Outcome.RIGHT),
        ("answer_is", "The answer is hello world.", Outcome.RIGHT),
        ("answer_is", "The answer is hello world or bye.", Outcome.WRONG),
        ("last_line", "So:\nhello world", Outcome.RIGHT),
        (["answer_tag", "last_line"], "hello world", Outcome.RIGHT),
        ("box", r"\boxed{hello world} or \boxed{bye}", Outcome.NO_ANSWER),
    ],
)
def test_exact_text_may_be_looked_for(extraction: str | list[str], response: str, outcome: Outcome) -> None:
    assert _judge(ExactCheck(ExactConfig()), response, gold="hello world", extraction=extraction) is outcome


@pytest.mark.parametrize(
    ("response", "is_right"),
    [
        (r"\boxed{Paris}", True),
        ("The answer is Paris.", True),
        ("Answer: **the city of Rome**", False),
        ("<answer>paris.</answer>", True),
        ("Answer: B. Paris", True),
        (r"\boxed{\text{(B) Paris}}", True),
        (r"\boxed{\text{(B) London}}", False),
        ("The answer is London.", False),
        ("The answer is Paris or London.", False),
        ("The answer is not Paris.", False),
        ("The answer is Paris. No, wait.", False),
        (r"\boxed{Paris}, so the answer is C", False),
        (r"\boxed{twin}", False),
        ("Paris is a city.", False),
    ],
)
def test_an_option_s_text_stands_for_its_letter_if_the_key_has_it(response: str, is_right: bool) -> None:
    options: tuple[Any, ...] = (
        ["London", "Paris", "the city of Rome", "twin", "twin"],
        {"A": "London", "(b)": "Paris", "C.": "the city of Rome", "D": "twin", "E": "twin"},
    )
    for given in options:
        outcome = _judge(ChoiceCheck(ChoiceConfig()), response, gold="B", options=given)
        assert (outcome is Outcome.RIGHT) == is_right
    assert _judge(ChoiceCheck(ChoiceConfig()), r"\boxed{Paris}", gold="B") is Outcome.WRONG


def test_a_gold_that_is_none_of_the_options_is_refused() -> None:
    with pytest.raises(InvalidInput, match="none of the 2 options"):
        _judge(ChoiceCheck(ChoiceConfig()), "B", gold="C", options=["a", "b"])


def test_the_key_says_where_a_choice_is_looked_for_else_the_configuration() -> None:
    strict = ChoiceCheck(ChoiceConfig(extraction=("box",)))
    assert _judge(strict, "Answer: B", gold="B") is Outcome.NO_ANSWER
    assert _judge(strict, "Answer: B", gold="B", extraction="answer_is") is Outcome.RIGHT
    with pytest.raises(InvalidInput, match=r"answer_key\.extraction.*'box', 'last_box'"):
        _judge(strict, "B", gold="B", extraction="last_number")


def test_a_gold_without_a_word_is_refused() -> None:
    with pytest.raises(InvalidInput, match="has no word"):
        _judge(ExactCheck(ExactConfig()), "a", gold=" \n")
