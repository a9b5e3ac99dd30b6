"""Data sets: what is read, what is refused and how it is told, and the sequence of tasks made of them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from services.learner.config import LearnerConfig
from services.learner.ledger import FIRST_TASK, TaskId
from services.learner.queue.problems import EncodedProblem, ProblemLimits, fingerprint, prompt_encoder, read_problems
from services.learner.queue.task_sequence import TaskSequence
from shared.errors import InvalidInput
from tests.learner.policies import VOCAB_SIZE, write_policy
from tests.learner.synthetic import growth

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


def sequence(seed: int = 0, count: int = 7) -> TaskSequence:
    problems = [EncodedProblem(f"p{number}", (number + 1,), "exact", {}) for number in range(count)]
    return TaskSequence("run", seed, problems, growth())


def test_every_pass_has_every_problem_once_in_its_own_order() -> None:
    tasks, task_id = sequence(), FIRST_TASK
    passes: list[list[str]] = []
    for _ in range(3):
        epoch = []
        for _ in range(7):
            epoch.append(tasks.task(task_id).problem_id)
            task_id = tasks.successor(task_id)
        passes.append(epoch)
    assert all(sorted(epoch) == [f"p{number}" for number in range(7)] for epoch in passes)
    assert len({tuple(epoch) for epoch in passes}) == 3
    assert task_id == TaskId(3, 0)


def test_a_task_is_a_function_of_seed_and_id() -> None:
    one, other = sequence(), sequence()
    ids = [TaskId(epoch, index) for epoch in range(6) for index in range(7)]
    assert [one.task(task_id) for task_id in ids] == [other.task(task_id) for task_id in reversed(ids)][::-1]
    assert len({one.task(task_id, attempt).seed for task_id in ids for attempt in range(3)}) == 3 * len(ids)
    assert [sequence(1).task(task_id).problem_id for task_id in ids] != [
        one.task(task_id).problem_id for task_id in ids
    ]


def test_a_configuration_says_what_it_needs(configured: Callable[..., LearnerConfig]) -> None:
    for changes, complaint in (
        ({"total_steps": None}, "say when the run ends"),
        ({"growth": {"sampler": "ib", "temperature": 0}}, "no distribution to learn from"),
        ({"objective": {"minibatches": 9}}, "exceed the 4 trees"),
        ({"publish_every": 3}, "publish at least every 2 updates"),
        ({"advantage": "grop"}, "no credit is named 'grop'"),
        ({"objective": {"clip": 1}}, "Extra inputs"),
    ):
        with pytest.raises(ValueError, match=complaint):
            configured(**changes)
    assert configured(advantage={"kind": "grpo", "epsilon": 0.5}).advantage.epsilon == 0.5
    assert configured(max_staleness=2).max_outstanding == 12
    assert configured(max_staleness=2, publish_every=2).max_outstanding == 8
    assert configured(objective={"kl_coef": 0}).needs_reference is False
