"""A held-out set with its problems, and what a replica is asked for each of them."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from services.learner.data.run_files import is_problem_file
from services.learner.data.source import DataSource
from services.learner.held_out_config import HeldOutSet, SetPlan
from services.learner.queue.problems import EncodedProblem, fingerprint
from shared.protocol.grow import GrowRequest


def source_of(one: HeldOutSet) -> DataSource:
    """Where the problems of a set are read from. Rows that come twice are problems of the set, unless they are not
    wanted: its size is a published one."""
    source = one.data
    return source if is_problem_file(source) else source.model_copy(update={"deduplicate": one.deduplicate})


def import_name(name: str) -> str:
    """What the files are called of a set that is imported into a run's folder."""
    return f"held_out-{name}"


@dataclass(frozen=True, slots=True)
class HeldOutProblems:
    """One set: how it is measured, and the first of its problems."""

    plan: SetPlan
    problems: tuple[EncodedProblem, ...]

    @classmethod
    def of(cls, plan: SetPlan, problems: Sequence[EncodedProblem]) -> "HeldOutProblems":
        return cls(plan, tuple(problems[: plan.problems]))

    def request(self, problem: EncodedProblem, seed: int) -> GrowRequest:
        """Asks for k independent answers. The same model gives the same ones wherever the problem stands: what they are
        sampled with depends on `seed`, the problem's id and its prompt alone."""
        text = f"{seed} {problem.id} {problem.source or problem.prompt_ids}"
        return GrowRequest(
            prompt_ids=problem.prompt_ids,
            kind=problem.kind,
            answer_key=problem.answer_key,
            growth=self.plan.growth,
            seed=int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]),
        )


def problem_hash(problem: EncodedProblem) -> str:
    """Of its id, prompt, kind and answer key."""
    return fingerprint((problem,))


def all_problems(sets: Iterable[HeldOutProblems]) -> tuple[EncodedProblem, ...]:
    return tuple(problem for one in sets for problem in one.problems)
