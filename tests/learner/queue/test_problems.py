"""Data sets: what is read, and what is refused with file and line."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from services.learner.queue.problems import EncodedProblem, ProblemLimits, fingerprint, prompt_encoder, read_problems
from shared.errors import InvalidInput
from tests.learner.policies import VOCAB_SIZE, write_policy

LIMITS = ProblemLimits(vocab_size=VOCAB_SIZE, context_length=64, max_answer_tokens=16)
ROW = {"id": "a", "prompt": "w0 w1", "kind": "exact", "answer_key": {"gold": "1"}}
TEMPLATE = "{% for m in messages %}{{ m['content'] }} {% endfor %}{% if add_generation_prompt %}w9{% endif %}"


def read(tmp_path: Path, policy_dir: Path, *lines: Any, limits: ProblemLimits = LIMITS) -> tuple[EncodedProblem, ...]:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return read_problems([path], prompt_encoder(AutoTokenizer.from_pretrained(policy_dir)), limits)


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
        (ROW | {"promt": "x"}, r"rows.jsonl:2: promt: Extra inputs"),
        ({"id": "a"}, r"rows.jsonl:2: prompt: Field required"),
        (ROW | {"prompt": ""}, r"rows.jsonl:2: prompt"),
        (ROW | {"prompt": " "}, r"rows.jsonl:2: the prompt of problem 'a' has no tokens"),
        (
            ROW | {"prompt": "w0 " * 60},
            r"60 tokens and an answer of 16 exceed .* context of 64; drop the row",
        ),
        (ROW | {"prompt": [{"role": "user", "content": "w1"}]}, r"no chat template; give text"),
    ],
)
def test_a_row_that_cannot_be_used_is_told_by_file_and_line(
    line: Any, complaint: str, tmp_path: Path, policy_dir: Path
) -> None:
    with pytest.raises(InvalidInput, match=complaint):
        read(tmp_path, policy_dir, ROW, line)


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
