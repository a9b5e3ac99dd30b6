r"""Where a response states its final answer."""

import time
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.verifier.checks.choice import find_choice
from services.verifier.checks.final_answer import FinalAnswer, extract_final_answer
from services.verifier.config import ChoiceConfig, Extraction
from shared.protocol.thought import strip_thinking
from tests.verifier.judging import DATA

LONGEST = 1_000


def _stated(response: str) -> tuple[str, ...] | None:
    found = extract_final_answer(response, LONGEST)
    return None if found is None else found.stated


@pytest.mark.parametrize(
    ("response", "stated"),
    [
        (r"so \boxed{4}", ("4",)),
        (r"so $\boxed{\frac{1}{2}}$.", (r"\frac{1}{2}",)),
        (r"so \boxed {4}", ("4",)),
        (r"so \boxed 4", ("4",)),
        (r"so \boxed4.", ("4",)),
        (r"so \fbox{4}", ("4",)),
        (r"so \\boxed{4}", ("4",)),
        (r"so \boxed{\boxed{4}}", ("4",)),
        (r"so \boxed{\{1,2\}}", (r"\{1,2\}",)),
        (r"so \boxed{28}\%", (r"28\%",)),
        (r"so $\boxed{28}$ percent", (r"28\%",)),
        (r"\boxed{4} and again \boxed{4}", ("4",)),
        (r"\boxed{1}, \boxed{2} and \boxed{3}", ("1", "2", "3")),
        ("\\boxed{1}\n\n\\boxed{2}", ("1", "2")),
        ("First \\boxed{1}.\n\nThen \\boxed{2}", ("2",)),
        ("First \\boxed{1}. Then \\boxed{2}", ("2",)),
        ("in \\boxed{}: so \\boxed{2}", ("2",)),
        ("Steps.\n#### 18", ("18",)),
        ("#### 18", ("18",)),
        (r"It is \boxed{5}, not \boxed{4}.", ("5",)),
        (r"It is not 3 but \boxed{4}", ("4",)),
        (r"This holds if and only if $\boxed{n=4}$", ("n=4",)),
        (r"So $n=\boxed{4}$ is not prime", ("4",)),
    ],
)
def test_the_last_sentence_with_a_box_states_the_answer(response: str, stated: tuple[str, ...]) -> None:
    assert _stated(response) == stated


@pytest.mark.parametrize(
    "response",
    [
        r"The answer is not $\boxed{4}$.",
        r"It isn't \(\boxed{4}\)",
        r"It cannot be \boxed{4}.",
        r"$\boxed{4}$ is wrong.",
        r"\boxed{4} is not the right answer",
        "答案不是\\boxed{4}",
        "\\boxed{4}不对",
        "",
        "4",
        "The answer is 4.",
        r"\boxed",
        r"\boxed{",
        r"\boxed{4",
        r"\boxed{}",
        r"\boxed{ }",
        r"\boxed{4} no, \boxed{}",
        r"\boxed{4} no, \boxed{5",
        r"\boxedfour{4}",
        r"<think>\boxed{4}",
        r"<think>\boxed{4}</think> hm",
        r"<think>a</think>\boxed{4}<think>",
        "#### 18\nor not",
        "it is #### 18",
        "####",
        rf"\boxed{{{'7' * 2_000}}}",
    ],
)
def test_what_states_no_answer(response: str) -> None:
    assert _stated(response) is None


@pytest.mark.parametrize("way", get_args(Extraction))
def test_each_way_finds_what_a_response_states(way: Extraction) -> None:
    lines = (DATA / "final_answers.tsv").read_text(encoding="utf-8").splitlines()
    rows = [line.replace("⏎", "\n").split("\t") for line in lines]
    owed = {response: stated for of, stated, response in rows if of == way}
    found = {response: extract_final_answer(response, LONGEST, (way,)) for response in owed}
    assert {response: "-" if it is None else " | ".join(it.stated) for response, it in found.items()} == owed
    assert owed


def test_the_first_way_that_finds_something_counts() -> None:
    ways: tuple[Extraction, ...] = ("box", "answer_is", "last_number")
    rows = {r"The answer is 3. \boxed{4}": "4", "The answer is 3, not 4.": "3, not 4", "So 4": "4"}
    for response, stated in rows.items():
        found = extract_final_answer(response, LONGEST, ways)
        assert found == FinalAnswer((stated,), (stated,))
    assert extract_final_answer(r"The answer is 3. Or \boxed{}", LONGEST, ways) is None


def test_all_boxes_are_kept_beside_those_of_the_last_sentence() -> None:
    found = extract_final_answer("x is \\boxed{1}. And y is \\boxed{2}.", LONGEST)
    assert found is not None
    assert found.stated == ("2",)
    assert found.boxes == ("1", "2")


def test_thinking_ends_with_the_last_closing_tag() -> None:
    assert strip_thinking("<think>a</think>b</think>c") == "c"
    assert strip_thinking("a") == "a"
    assert strip_thinking("<think>a") is None


@given(st.text())
def test_any_text_has_an_answer_or_none(response: str) -> None:
    extract_final_answer(response, LONGEST)


@pytest.mark.parametrize(
    "unit",
    [
        "the answer is ",
        "Answer: B\n",
        "答案是",
        "answer: $",
        "</answer><answer>4",
        "it is B. ",
        "not 1,111/",
        "\\boxed{\\boxed{1}} ",
        "\\boxed{",
        "\\boxed{1} ",
        "{",
        "}",
        "\\",
        "$ ",
        "<think>",
        "</think>",
        "#### 1\n",
        "\\boxed{{1}",
        "\\fbox \\boxed",
    ],
)
def test_a_megabyte_of_anything_takes_no_time(unit: str) -> None:
    response = unit * (1_000_000 // len(unit))
    start = time.process_time()
    extract_final_answer(response, 10_000, get_args(Extraction))
    find_choice(response, ChoiceConfig().extraction)
    assert time.process_time() - start < 5
