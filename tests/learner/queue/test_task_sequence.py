"""The sequence of tasks: every pass in its own order, the same for the same seed."""

import pytest

from services.learner.ledger import FIRST_TASK, TaskId
from services.learner.queue import task_sequence
from services.learner.queue.problems import EncodedProblem
from services.learner.queue.task_sequence import TaskSequence
from shared.tree.ib_score import IBSettings
from tests.learner.synthetic import growth


def sequence(seed: int = 0, count: int = 7, *, repeats_attempts: bool = False) -> TaskSequence:
    problems = [EncodedProblem(f"p{number}", (number + 1,), "exact", {}) for number in range(count)]
    return TaskSequence("run", seed, problems, growth(), IBSettings(), repeats_attempts=repeats_attempts)


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


def test_where_attempts_are_repeated_all_grow_the_same_tree() -> None:
    repeating, first = sequence(repeats_attempts=True), sequence().task(TaskId(1, 2))
    assert {repeating.task(TaskId(1, 2), attempt).seed for attempt in range(3)} == {first.seed}


def test_another_version_of_a_sampler_is_another_way_to_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a run which goes on with it sends what is outstanding again, as replicas now read it."""
    found = {sequence().growth_fingerprint}
    for digest in ("0123", "4567"):
        monkeypatch.setattr(task_sequence, "own_code", lambda _, known=digest: {"my_pkg.mine": known})
        found.add(sequence().growth_fingerprint)
    assert len(found) == 3
