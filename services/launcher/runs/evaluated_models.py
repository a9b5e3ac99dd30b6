"""Models and what they answered to held-out sets, with the files that an interrupted evaluation goes on with."""

from dataclasses import dataclass, field
from pathlib import Path

from services.learner.held_out.problem_set import HeldOutProblems, problem_hash
from services.learner.held_out.results import Header, ProblemResult, ResultsFile, differences
from services.learner.queue.problems import EncodedProblem
from shared.errors import InvalidInput


@dataclass(slots=True)
class SetResults:
    """One set, as one model answers it."""

    held_out: HeldOutProblems
    file: ResultsFile
    results: dict[str, ProblemResult] = field(default_factory=dict)
    refusals: list[str] = field(default_factory=list)
    """Why problems have no answers."""

    @property
    def in_order(self) -> tuple[ProblemResult, ...]:
        """In the order of the problems."""
        return tuple(self.results[one.id] for one in self.held_out.problems if one.id in self.results)

    @property
    def missing(self) -> tuple[EncodedProblem, ...]:
        return tuple(one for one in self.held_out.problems if one.id not in self.results)


@dataclass(frozen=True, slots=True)
class EvaluatedModel:
    """A model, and its answers to every set. `weights` tells it from others."""

    name: str
    directory: Path
    weights: str
    sets: tuple[SetResults, ...]


def begin_results(model: EvaluatedModel, settings: dict[str, object]) -> None:
    """Takes up what is in the files of the model's sets; InvalidInput where that is of something else, before any file
    is changed."""
    headers = []
    for one in model.sets:
        plan = one.held_out.plan
        header = Header(set=plan.name, weights=model.weights, settings=plan.settings | settings)
        there, found = one.file.read()
        if there is not None and (changed := differences(there, header)):
            raise InvalidInput(
                f"{one.file.path} holds answers under other settings ({'; '.join(changed)}): give another --out, or "
                "those settings"
            )
        hash_of = {problem.id: problem_hash(problem) for problem in one.held_out.problems}
        for result in found.values():
            if hash_of.get(result.id, result.problem) != result.problem:
                raise InvalidInput(
                    f"{one.file.path} holds answers to another problem {result.id!r}: its prompt or answer key was "
                    "changed since; give another --out"
                )
        one.results = {name: result for name, result in found.items() if name in hash_of}
        headers.append((one, header, found))
    for one, header, found in headers:
        one.file.begin(header, found)  # also without a line that was cut
