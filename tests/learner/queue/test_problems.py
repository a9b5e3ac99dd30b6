"""Data sets: what is read, and what is refused with file and line."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from services.learner.queue.problems import (
    EncodedProblem,
    ProblemLimits,
    fingerprint,
    read_problems,
)
from shared.errors import InvalidInput
from shared.weights import prompt_encoder
from tests.learner.policies import VOCAB_SIZE, write_policy

LIMITS = ProblemLimits(vocab_size=VOCAB_SIZE, context_length=64, max_answer_tokens=16)
ROW = {"id": "a", "prompt": "w0 w1", "kind": "exact", "answer_key": {"gold": "1"}}
TEMPLATE = "{% for m in messages %}{{ m['content'] }} {% endfor %}{% if add_generation_prompt %}w9{% endif %}"


def read(tmp_path: Path, policy_dir: Path, *lines: Any, limits: ProblemLimits = LIMITS) -> tuple[EncodedProblem, ...]:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return read_problems([path], prompt_encoder(AutoTokenizer.from_pretrained(policy_dir)), limits).problems


def test_prompts_are_read_in_the_policys_tokens(tmp_path: Path, policy_dir: Path) -> None:
    problems = read(tmp_path, policy_dir, ROW, "", ROW | {"id": "b", "prompt": "w2"})
    assert [(one.id, one.prompt_ids) for one in problems] == [("a", (3, 4)), ("b", (5,))]


def test_messages_go_through_the_chat_template_up_to_the_answer(tmp_path: Path) -> None:
    directory = write_policy(tmp_path / "chat", chat_template=TEMPLATE)
    messages = [{"role": "system", "content": "w0"}, {"role": "user", "content": "w1"}]
    (problem,) = read(tmp_path, directory, ROW | {"prompt": messages})
    assert problem.prompt_ids == (3, 4, 12)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", r"rows.jsonl:2: not JSON: "),
        ({"id": "a"}, r"rows.jsonl:2: prompt: Field required"),
        (ROW | {"prompt": ""}, r"rows.jsonl:2: prompt"),
        (ROW | {"id": "b", "prompt": " "}, r"rows.jsonl:2: the prompt of problem 'b' has no tokens"),
        (ROW, r"rows.jsonl:2: the id 'a' is that of .*rows.jsonl:1; give every row one of its own"),
        (ROW | {"id": "b", "kind": ""}, r"rows.jsonl:2: kind is empty"),
        (ROW | {"id": "b", "prompt": [{"role": "user", "content": "w1"}]}, r"no chat template; give text"),
    ],
)
def test_a_row_that_cannot_be_used_is_told_by_file_and_line(
    line: Any, complaint: str, tmp_path: Path, policy_dir: Path
) -> None:
    with pytest.raises(InvalidInput, match=complaint):
        read(tmp_path, policy_dir, ROW, line)


def test_columns_and_integer_ids_of_other_tools_are_no_hindrance(tmp_path: Path, policy_dir: Path) -> None:
    problems = read(tmp_path, policy_dir, ROW | {"id": 0, "source": "gsm8k"}, ROW | {"id": 1, "level": 3})
    assert [one.id for one in problems] == ["0", "1"]


def test_a_row_that_is_too_long_is_left_out_and_said(tmp_path: Path, policy_dir: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [ROW, ROW | {"id": "b", "prompt": "w0 " * 60}, ROW | {"id": "c"}, ROW | {"id": "d", "prompt": "w0 " * 49}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    encode = prompt_encoder(AutoTokenizer.from_pretrained(policy_dir))
    found = read_problems([path], encode, LIMITS)
    assert [one.id for one in found.problems] == ["a", "c"]
    assert "2 of 4 problems are left out, the first" in found.note
    assert "rows.jsonl:2: a prompt of 60 tokens and an answer of 16 exceed" in found.note
    with pytest.raises(InvalidInput, match="1 problems, all too long"):
        read(tmp_path, policy_dir, rows[1])


def test_files_may_share_ids(tmp_path: Path, policy_dir: Path) -> None:
    paths = [tmp_path / "one.jsonl", tmp_path / "two.jsonl"]
    for path in paths:
        path.write_text("".join(json.dumps(ROW | {"id": number}) + "\n" for number in range(5)))
    encode = prompt_encoder(AutoTokenizer.from_pretrained(policy_dir))
    problems = read_problems(paths, encode, LIMITS).problems
    assert [(Path(one.file).name, one.id) for one in problems] == [
        (path.name, str(number)) for path in paths for number in range(5)
    ]


def test_a_template_gets_its_settings_and_does_not_make_other_problems(tmp_path: Path) -> None:
    directory = write_policy(tmp_path / "chat", chat_template="{% if thinks %}w7{% else %}w8{% endif %}")
    tokenizer, path = AutoTokenizer.from_pretrained(directory), tmp_path / "rows.jsonl"
    path.write_text(json.dumps(ROW | {"prompt": [{"role": "user", "content": "w1"}]}))
    thinking, plain = (read_problems([path], prompt_encoder(tokenizer, {"thinks": on}), LIMITS) for on in (True, False))
    assert [one.problems[0].prompt_ids for one in (thinking, plain)] == [(10,), (11,)]
    assert fingerprint(thinking.problems) == fingerprint(plain.problems)


def test_a_template_writes_the_date_that_it_is_given(tmp_path: Path) -> None:
    directory = write_policy(tmp_path / "chat", chat_template="w{{ strftime_now('%d') | int }}")
    encode = prompt_encoder(AutoTokenizer.from_pretrained(directory), {}, datetime(2026, 2, 7, tzinfo=UTC))
    assert encode(({"role": "user", "content": "w1"},)) == (10,)


@pytest.mark.parametrize(
    "template",
    ["{{ raise_exception('no system role') }}", "{{ messages[0].name.first }}", "{{ messages[0]['content'] + 1 }}"],
)
def test_a_template_that_refuses_is_told_by_file_and_line(template: str, tmp_path: Path) -> None:
    directory = write_policy(tmp_path / "chat", chat_template=template)
    with pytest.raises(InvalidInput, match=r"rows.jsonl:1: the chat template refuses these messages: "):
        read(tmp_path, directory, ROW | {"prompt": [{"role": "system", "content": "w0"}]})


def test_a_text_has_the_tokenizers_beginning_once_and_never_its_end(tmp_path: Path, policy_dir: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(policy_dir)
    specials = [("w9", 12), ("<eos>", 1)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing("w9 $A <eos>", special_tokens=specials)
    encode = prompt_encoder(tokenizer)
    assert encode("w0 w1") == (12, 3, 4)
    assert encode("w9 w0 w1") == (12, 3, 4)


def test_a_row_that_is_not_utf8_is_refused(tmp_path: Path, policy_dir: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(b'{"id": "\xff"}\n')
    with pytest.raises(InvalidInput, match=r"bad.jsonl:1"):
        read_problems([path], prompt_encoder(AutoTokenizer.from_pretrained(policy_dir)), LIMITS)


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path, policy_dir: Path) -> None:
    with pytest.raises(InvalidInput, match="take the tokenizer of this model"):
        read(tmp_path, policy_dir, ROW, limits=ProblemLimits(4, 64, 16))


def test_files_that_are_missing_or_empty_are_refused(tmp_path: Path, policy_dir: Path) -> None:
    with pytest.raises(InvalidInput, match=r"cannot read .*none.jsonl"):
        read_problems([tmp_path / "none.jsonl"], lambda _: (1,), LIMITS)
    with pytest.raises(InvalidInput, match="no problems in"):
        read(tmp_path, policy_dir, "")


def test_the_fingerprint_tells_data_sets_apart(tmp_path: Path, policy_dir: Path) -> None:
    one, same = read(tmp_path, policy_dir, ROW), read(tmp_path, policy_dir, ROW)
    other = read(tmp_path, policy_dir, ROW | {"answer_key": {"gold": "2"}})
    assert fingerprint(one) == fingerprint(same) != fingerprint(other)
