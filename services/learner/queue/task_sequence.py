"""The run's sequence of tasks: every pass over the problems in an order of its own, which the seed fixes."""

import hashlib
import random
from collections.abc import Sequence
from functools import lru_cache

from services.learner.ledger import TaskId
from services.learner.queue.problems import EncodedProblem
from shared.kinds import own_code
from shared.protocol.task import Growth, Task
from shared.tree.ib_score import IBSettings


class TaskSequence:
    """Makes tasks from their ids: a pure function of run, seed and problems, so only ids have to be stored."""

    def __init__(
        self,
        run: str,
        seed: int,
        problems: Sequence[EncodedProblem],
        growth: Growth,
        score: IBSettings,
        rendering: str = "",
        *,
        repeats_attempts: bool = False,
    ) -> None:
        """`rendering`: how chat messages become prompts. `repeats_attempts`: all attempts at a task have one seed."""
        self._run = run
        self._seed = seed
        self._problems = problems
        self._growth = growth
        self._score = score
        self._rendering = rendering
        self._repeats_attempts = repeats_attempts
        self._own_code = own_code(growth.sampler)
        self._order = lru_cache(maxsize=4)(self._shuffle)

    def task(self, task_id: TaskId, attempt: int = 0) -> Task:
        """The task with this id; unless attempts are repeated, each has its own seed."""
        of_seed = 0 if self._repeats_attempts else attempt
        problem = self._problems[self._order(task_id.epoch)[task_id.index]]
        return Task(
            run=self._run,
            id=str(task_id),
            attempt=attempt,
            problem_id=problem.id,
            prompt_ids=problem.prompt_ids,
            kind=problem.kind,
            answer_key=problem.answer_key,
            growth=self._growth,
            score=self._score,
            seed=random.Random(f"{self._seed} {task_id} {of_seed}").getrandbits(48),
            own_code=self._own_code,
        )

    @property
    def growth_fingerprint(self) -> str:
        """A hash of all in a task that is neither its problem nor its seed."""
        of_some = filter(None, (self._rendering, self._own_code))
        parts = (self._run, self._growth.model_dump_json(), self._score, *of_some)
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

    def successor(self, task_id: TaskId) -> TaskId:
        if task_id.index + 1 < len(self._problems):
            return TaskId(task_id.epoch, task_id.index + 1)
        return TaskId(task_id.epoch + 1, 0)

    def _shuffle(self, epoch: int) -> list[int]:
        order = list(range(len(self._problems)))
        random.Random(f"{self._seed} {epoch}").shuffle(order)
        return order
