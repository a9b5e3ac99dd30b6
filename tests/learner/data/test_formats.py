"""Named formats: rows with the columns of public sets are found by these alone, and become problems."""

import base64
import json
import pickle
import zlib
from typing import Any

import pytest

from services.learner.data.formats.base import ConvertedRow, Unusable
from services.learner.data.formats.catalogue import FORMATS, detect_format, find_format
from services.learner.data.source import DataSource
from shared.errors import InvalidInput

DAPO = (
    "Solve the following math problem step by step. The last line of your response should be of the form Answer: "
    "$Answer (without quotes) where $Answer is the answer to the problem.\n\nHow much is 30 + 4?\n\nRemember to put "
    'your answer on its own line after "Answer:".'
)
USER = {"role": "user", "content": "How much is 30 + 4?"}
STDIO = {"inputs": ["1 2\n", "3 4\n"], "outputs": ["3\n", "7\n"]}
CALLS = {"fn_name": "add", "inputs": [[1, 2], [3, 4]], "outputs": [3, 7]}
CASES = [{"input": "1 2", "output": "3", "testtype": "stdin"}]
PACKED = base64.b64encode(zlib.compress(pickle.dumps(json.dumps(CASES)))).decode()
STDIO_KEY = {"type": "stdio", "cases": [{"input": "1 2\n", "output": "3\n"}, {"input": "3 4\n", "output": "7\n"}]}
CALLS_KEY = {"type": "functional", "fn_name": "add", "inputs": [[1, 2], [3, 4]], "outputs": [3, 7]}

MATH_ROWS: list[tuple[str, dict[str, Any], str]] = [
    ("gsm8k", {"question": "Q?", "answer": "so it is 1,200.\n#### 1,200"}, "1200"),
    (
        "math",
        {"problem": "P?", "level": "Level 5", "type": "Algebra", "solution": r"It is \boxed{\frac{1}{2}}."},
        r"\frac{1}{2}",
    ),
    ("math", {"id": 1, "problem": "P?", "solution": r"\boxed{204}", "url": "u"}, "204"),
    (
        "math-answer",
        {"problem": "P?", "solution": "s", "answer": r"\sqrt{2}", "level": 2, "unique_id": "t/1"},
        r"\sqrt{2}",
    ),
    ("math-answer", {"ID": "2024-I-4", "Problem": "P?", "Solution": "s", "Answer": 116}, "116"),
    (
        "math-answer",
        {"ID": "1983-1", "Year": 1983, "Problem Number": 1, "Question": "Q?", "Answer": "60", "Part": None},
        "60",
    ),
    ("math-answer", {"id": 0, "problem": "P?", "answer": 142.0, "url": "u"}, "142"),
    ("math-answer", {"question": "Q?", "final_answer": "e", "difficulty": 5.0, "r1_solution_1": "…"}, "e"),
    (
        "dapo",
        {
            "data_source": "math_dapo",
            "prompt": [{"role": "user", "content": DAPO}],
            "ability": "MATH",
            "reward_model": {"ground_truth": "34", "style": "rule-lighteval/MATH_v2"},
            "extra_info": {"index": "9a"},
        },
        "34",
    ),
    (
        "dapo",
        {
            "prompt": "P?",
            "solution": "34",
            "data_source": "math_dapo",
            "source_prompt": [USER],
            "reward_model": {"ground_truth": "34", "style": "s"},
            "extra_info": {"index": "9a"},
        },
        "34",
    ),
    (
        "verl",
        {
            "data_source": "openai/gsm8k",
            "prompt": [USER],
            "ability": "math",
            "reward_model": {"ground_truth": "34", "style": "rule"},
            "extra_info": {"index": 0, "split": "train"},
        },
        "34",
    ),
    (
        "prime",
        {
            "problem_id": "p",
            "task_type": "verifiable_math",
            "prompt": "P?",
            "verification_info": '{"ground_truth": "34"}',
        },
        "34",
    ),
    ("rlvr", {"messages": [USER], "ground_truth": "34", "dataset": "MATH"}, "34"),
    ("ibtpo", {"id": "a", "prompt": "P?", "kind": "math", "answer_key": {"gold": "34"}}, "34"),
    ("verl", {"prompt": [USER], "ability": "math", "reward_model": {"ground_truth": '["34"]', "style": "rule"}}, "34"),
    ("verl", {"prompt": json.dumps([USER]), "reward_model": '{"ground_truth": "34"}'}, "34"),
    ("rlvr", {"messages": [USER], "ground_truth": ["34"], "dataset": ["math"]}, "34"),
]
CHOICE_ROWS: list[tuple[str, dict[str, Any], str]] = [
    ("mmlu", {"question": "Q?", "subject": "law", "choices": ["w", "x", "y", "z"], "answer": 2}, "y"),
    (
        "mmlu",
        {
            "question_id": 70,
            "question": "Q?",
            "options": ["w", "x"],
            "answer": "B",
            "answer_index": 1,
            "category": "law",
        },
        "x",
    ),
    (
        "mmlu",
        {"id": "m", "question": "Q?", "choices": {"text": ["w", "x"], "label": ["1", "2"]}, "answerKey": "2"},
        "x",
    ),
    (
        "mmlu",
        {"id": "m", "question_stem": "Q?", "choices": {"text": ["w", "x"], "label": ["A", "B"]}, "answerKey": "A"},
        "w",
    ),
    ("mmlu", {"question": "Q?", "A": "w", "B": "x", "C": "y", "D": "z", "answer": "D"}, "z"),
    ("mmlu", {"question": "Q?", "options": {"A": "w", "B": "x"}, "answer": "x", "answer_idx": "B"}, "x"),
    (
        "gpqa",
        {
            "Question": "Q?",
            "Correct Answer": "r",
            "Incorrect Answer 1": "a",
            "Incorrect Answer 2": "b",
            "Incorrect Answer 3": "c",
            "Subdomain": "s",
            "Record ID": "rec",
        },
        "r",
    ),
    (
        "sciq",
        {"question": "Q?", "correct_answer": "r", "distractor1": "a", "distractor2": "b", "distractor3": "c"},
        "r",
    ),
    ("mmlu", {"question": "Q?", "options": ["A)21", "B)21.5", "C)22"], "rationale": "r", "correct": "B"}, "21.5"),
]
CODE_ROWS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    (
        "humaneval",
        {
            "task_id": "HumanEval/0",
            "prompt": "def f(): ...",
            "entry_point": "f",
            "canonical_solution": "",
            "test": "def check(f): assert f()",
        },
        {"type": "check", "entry_point": "f", "test": "def check(f): assert f()"},
    ),
    (
        "mbpp",
        {
            "text": "Write f.",
            "code": "",
            "task_id": 1,
            "test_setup_code": "",
            "test_list": ["assert f()"],
            "challenge_test_list": [],
        },
        {"type": "assert", "asserts": ["assert f()"]},
    ),
    (
        "mbpp",
        {"prompt": "Write f.", "code": "", "task_id": 1, "test_imports": ["import math"], "test_list": ["assert f()"]},
        {"type": "assert", "asserts": ["assert f()"], "setup": "import math"},
    ),
    (
        "code-tests",
        {
            "problem_id": 0,
            "question": "Add.",
            "solutions": "[]",
            "input_output": json.dumps(STDIO),
            "difficulty": "interview",
            "url": "u",
            "starter_code": "",
        },
        STDIO_KEY,
    ),
    (
        "code-tests",
        {"question": "Add.", "input_output": json.dumps(CALLS), "starter_code": "def add(a, b):"},
        CALLS_KEY,
    ),
    (
        "code-tests",
        {
            "name": "n",
            "description": "Add.",
            "public_tests": {"input": ["1 2\n"], "output": ["3\n"]},
            "private_tests": {"input": ["3 4\n"], "output": ["7\n"]},
            "source": 2,
            "difficulty": 8,
        },
        STDIO_KEY,
    ),
    (
        "code-tests",
        {
            "question_title": "t",
            "question_content": "Add.",
            "platform": "atcoder",
            "starter_code": "",
            "public_test_cases": json.dumps(CASES),
            "private_test_cases": PACKED,
            "metadata": "{}",
        },
        {"type": "stdio", "cases": [{"input": "1 2", "output": "3"}] * 2},
    ),
    (
        "code-tests",
        {
            "question_content": "Add.",
            "starter_code": "class Solution: ...",
            "metadata": '{"func_name": "add"}',
            "public_test_cases": json.dumps(
                [
                    {"input": "1\n2", "output": "3", "testtype": "functional"},
                    {"input": "3\n4", "output": "7", "testtype": "functional"},
                ]
            ),
            "private_test_cases": "",
        },
        CALLS_KEY,
    ),
    ("code-tests", {"problem": "Add.", "solutions": [], "tests": json.dumps(STDIO)}, STDIO_KEY),
    (
        "code-tests",
        {
            "problem": "Add.",
            "tests": json.dumps(
                [
                    {"type": "stdin_stdout", "input": "1 2\n", "output": "3\n"},
                    {"type": "stdin_stdout", "input": "3 4\n", "output": "7\n"},
                ]
            ),
        },
        STDIO_KEY,
    ),
    (
        "code-tests",
        {
            "content": "Add.",
            "id": 0,
            "labels": "{}",
            "test": json.dumps(
                [
                    {"input": {"stdin": given}, "output": {"stdout": out}}
                    for given, out in (("1 2\n", "3\n"), ("3 4\n", "7\n"))
                ]
            ),
        },
        STDIO_KEY,
    ),
    (
        "verl",
        {
            "data_source": "taco",
            "prompt": [USER],
            "ability": "code",
            "reward_model": {"ground_truth": json.dumps(STDIO)},
        },
        STDIO_KEY,
    ),
    (
        "prime",
        {
            "prompt": "Add.",
            "task_type": "verifiable_code",
            "verification_info": json.dumps(
                {
                    "language": "python",
                    "test_cases": [
                        {"fn_name": "add", "input": "1\n2", "output": "3", "type": "function_call"},
                        {"fn_name": "add", "input": "3\n4", "output": "7", "type": "function_call"},
                    ],
                }
            ),
        },
        CALLS_KEY,
    ),
]


def convert(name: str, row: dict[str, Any]) -> ConvertedRow:
    """By the columns alone, which only this format may have."""
    assert [one.name for one in FORMATS if one.fits(row)] == [name]
    found = detect_format([row])
    assert found is not None
    return found.convert(row)


@pytest.mark.parametrize(("name", "row", "gold"), MATH_ROWS)
def test_the_gold_of_a_mathematical_problem_is_found(name: str, row: dict[str, Any], gold: str) -> None:
    problem = convert(name, row)
    assert (problem.kind, problem.answer_key) == ("math", {"gold": gold})


@pytest.mark.parametrize(("name", "row", "right"), CHOICE_ROWS)
def test_the_gold_of_a_choice_is_the_letter_of_the_right_option(name: str, row: dict[str, Any], right: str) -> None:
    problem = convert(name, row)
    options, letter = problem.answer_key["options"], problem.answer_key["gold"]
    assert options["ABCD".index(letter)] == right
    assert f"\n{letter}. {right}" in problem.text
    assert convert(name, row) == problem, "the order depends on the row alone"


@pytest.mark.parametrize(("name", "row", "tests"), CODE_ROWS)
def test_the_tests_of_a_programming_problem_are_the_verifiers(
    name: str, row: dict[str, Any], tests: dict[str, Any]
) -> None:
    problem = convert(name, row)
    assert (problem.kind, problem.answer_key) == ("code", {"tests": tests})


def test_an_instruction_of_the_set_itself_is_left_out_and_columns_are_kept() -> None:
    assert convert("dapo", MATH_ROWS[8][1]).prompt == "How much is 30 + 4?"
    assert convert("math", MATH_ROWS[1][1]).columns == {"level": "Level 5", "type": "Algebra"}


def test_the_right_option_does_not_always_stand_in_the_same_place() -> None:
    gpqa = dict(CHOICE_ROWS[6][1])
    assert len({convert("gpqa", gpqa | {"Question": f"{n}?"}).answer_key["gold"] for n in range(40)}) == 4


@pytest.mark.parametrize(
    ("name", "row", "reason"),
    [
        ("math-answer", {"problem": "P?", "answer": "proof"}, "which states none"),
        ("math-answer", {"problem": "P?", "answer": None}, "no gold"),
        ("math-answer", {"problem": "P?", "answer": float("nan")}, "no finite number"),
        ("math-answer", {"problem": None, "answer": "1"}, "no text in problem"),
        ("math-answer", {"problem": "P?", "answer": {"value": 1}}, "the gold is a dict"),
        ("math", {"problem": "P?", "solution": r"so \boxed{1"}, r"no \\boxed"),
        ("aime", {"problem": "P?", "answer": True}, "true or false"),
        ("mmlu", {"question": "Q?", "choices": ["w", "x"], "answer": 4}, "none of the options"),
        ("mmlu", {"question": "Q?", "choices": ["w", "w"], "answer": 0}, "another option has the text"),
        ("mbpp", {"text": "Write f.", "test_list": []}, "no tests"),
        ("code-tests", {"problem": "Add.", "tests": "[]"}, "no tests"),
        ("code-tests", {"problem": "Add.", "tests": '{"inputs": ["1"], "outputs": []}'}, "as many outputs"),
        ("verl", {"prompt": [], "reward_model": {"ground_truth": "1"}}, "no messages"),
    ],
)
def test_a_row_that_cannot_be_a_problem_says_why(name: str, row: dict[str, Any], reason: str) -> None:
    with pytest.raises(Unusable, match=reason):
        next(one for one in FORMATS if one.name == name).convert(row)


def test_numbers_of_competitions_lose_what_is_no_number() -> None:
    aime = next(one for one in FORMATS if one.name == "aime")
    golds = [
        aime.convert({"problem": "P?", "answer": answer}).answer_key["gold"]
        for answer in ("033", "33.0", 33, "$33^\\circ$")
    ]
    assert golds == ["33"] * 4


def test_a_pickle_that_names_a_function_is_not_run() -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return print, ("ran",)

    packed = base64.b64encode(zlib.compress(pickle.dumps(Evil()))).decode()
    with pytest.raises(Unusable, match="cannot be unpacked"):
        next(one for one in FORMATS if one.name == "code-tests").convert(
            {"question_content": "Add.", "public_test_cases": "[]", "private_test_cases": packed}
        )


def own(**changes: Any) -> DataSource:
    return DataSource.model_validate({"source": "mine.jsonl", "fields": {"prompt": "q", "gold": "a"}} | changes)


def test_a_map_of_ones_own_follows_dotted_paths_and_json_text() -> None:
    row = {"meta": {"items": [{"text": "Q?"}]}, "more": '{"answer": 7.0}', "a.b": "id-1"}
    source = own(fields={"prompt": "meta.items.0.text", "gold": "more.answer", "id": "a.b"})
    problem = find_format(source, [row]).convert(row)
    assert (problem.prompt, problem.answer_key, problem.id) == ("Q?", {"gold": "7"}, "id-1")


def test_a_map_may_name_options_tests_and_a_kind() -> None:
    row = {"q": "Q?", "a": "x", "o": ["w", "x"], "t": STDIO, "k": "exact"}
    choice = find_format(own(fields={"prompt": "q", "gold": "a", "options": "o"}), [row]).convert(row)
    code = find_format(own(fields={"prompt": "q", "tests": "t"}), [row]).convert(row)
    exact = find_format(own(fields={"prompt": "q", "gold": "a", "kind": "k"}), [row]).convert(row)
    mine = find_format(own(kind="mine", fields={"prompt": "q", "gold": "o"}), [row]).convert(row)
    assert [(one.kind, one.answer_key) for one in (choice, code, exact, mine)] == [
        ("choice", {"gold": "B", "options": ["w", "x"]}),
        ("code", {"tests": STDIO_KEY}),
        ("exact", {"gold": "x"}),
        ("mine", {"gold": ["w", "x"]}),
    ]


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        (own(fields={"prompt": "q", "gold": "b"}), r"fit no row; there are the columns q, a, meta.level"),
        (own(fields={"prompt": "q"}), "and the gold or the tests"),
        (own(fields={"prompt": "q", "gold": "a", "answer": "a"}), "fields has no 'answer'; it maps prompt, gold"),
        (own(fields={}, format="gsm8"), "did you mean gsm8k"),
        (own(fields={}), r"has the columns q, a, meta.level, which no format has: name them"),
    ],
)
def test_what_fits_no_row_names_the_columns_that_there_are(source: DataSource, complaint: str) -> None:
    with pytest.raises(InvalidInput, match=complaint):
        find_format(source, [{"q": "Q?", "a": "1", "meta": {"level": 3}}])


def test_a_question_stands_behind_the_text_that_it_is_about() -> None:
    row = {"ID": "1", "Body": "There are 5 dogs.", "Question": "How many?", "Equation": "5", "Answer": 5.0}
    assert find_format(DataSource(source="svamp.jsonl"), [row]).convert(row).prompt == "There are 5 dogs. How many?"


@pytest.mark.parametrize(("answers", "golds"), [((1, 2, 3), "ABC"), ((0, 1, 2), "ABC"), ((1, 2, 1), "BCB")])
def test_answers_count_from_one_where_the_rows_show_it(answers: tuple[int, ...], golds: str) -> None:
    rows = [{"question": f"Q{number}?", "choices": ["x", "y", "z"], "answer": number} for number in answers]
    form = find_format(DataSource(source="mine.jsonl"), rows)
    assert "".join(form.convert(row).answer_key["gold"] for row in rows) == golds
    assert bool(form.note) == (answers == (1, 2, 3))


def test_letters_before_options_are_not_shown_twice() -> None:
    row = {"question": "Q?", "options": ["A) 21", "(B) 21.5"], "correct": "B"}
    assert find_format(DataSource(source="aqua.jsonl"), [row]).convert(row).prompt == "Q?\n\nA. 21\nB. 21.5"
