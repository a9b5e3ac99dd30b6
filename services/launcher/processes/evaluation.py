"""Has models answer held-out problems through a verifier and replicas of their own."""

import asyncio
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

from services.launcher.processes.temporary_services import run_replicas, run_verifier
from services.launcher.runs.evaluated_models import EvaluatedModel, SetResults
from services.learner.held_out.problem_set import all_problems, problem_hash
from services.learner.held_out.results import ProblemResult
from services.learner.held_out.voting import count_votes
from services.learner.queue.problems import EncodedProblem
from services.learner.queue.vetting import KeyVetting
from shared.clients import RolloutClient, VerifierClient
from shared.errors import IbtpoError, InvalidInput, Overloaded, Unavailable, Unreachable
from shared.protocol.tree import ScoredTree
from shared.runtime.client import http_client

ANSWER_SECONDS = 3600.0
PROBLEMS_PER_REPLICA = 16
_TRIES = 3
_PAUSE_SECONDS = 1.0

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Services:
    """Which services answer and judge: of which configuration, a preset or a file, with which settings."""

    config: str | Path
    rollout: tuple[str, ...] = ()
    verifier: tuple[str, ...] = ()
    replicas: int = 1


async def answer_sets(
    models: Sequence[EvaluatedModel], services: Services, seed: int, say: Say, on_answer: Callable[[], None]
) -> None:
    """Answers what is missing, one model after another. The first error that no other problem can escape is raised."""
    with tempfile.TemporaryDirectory(prefix="ibtpo-eval-") as name:
        folder = Path(name)
        async with AsyncExitStack() as stack:
            http = await stack.enter_async_context(http_client(None, ANSWER_SECONDS))
            say("starting the verifier")
            verifier_url = await stack.enter_async_context(run_verifier(folder, services.config, services.verifier))
            verifier = VerifierClient(http, verifier_url)
            for model in models:
                await KeyVetting(verifier, all_problems(one.held_out for one in model.sets)).vet()
            for number, model in enumerate(models):
                if not any(one.missing for one in model.sets):
                    continue
                say(f"loading {model.name}")
                place = folder / str(number)
                place.mkdir()
                replicas = run_replicas(
                    model.directory,
                    services.replicas,
                    place,
                    verifier_url,
                    config=services.config,
                    settings=services.rollout,
                )
                async with replicas as urls:
                    say(f"answering with {model.name}")
                    clients = tuple(RolloutClient(http, url) for url in urls)
                    await _Answering(clients, verifier, seed, on_answer).run(model.sets)


class _Answering:
    """The problems of one model's sets, a bounded number of them at once."""

    def __init__(
        self, clients: Sequence[RolloutClient], verifier: VerifierClient, seed: int, on_answer: Callable[[], None]
    ) -> None:
        self._clients = cycle(clients)
        self._capacity = asyncio.Semaphore(PROBLEMS_PER_REPLICA * len(clients))
        self._verifier = verifier
        self._seed = seed
        self._on_answer = on_answer

    async def run(self, sets: Sequence[SetResults]) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for one in sets:
                    for problem in one.missing:
                        group.create_task(self._answer(problem, one))
        except ExceptionGroup as failures:  # an error of ours says what to do; the others are of our making
            raise next(
                (one for one in failures.exceptions if isinstance(one, IbtpoError)), failures.exceptions[0]
            ) from None
        for one in sets:
            if not one.missing:
                one.file.finish()

    async def _answer(self, problem: EncodedProblem, one: SetResults) -> None:
        async with self._capacity:
            try:
                tree = await self._grow(problem, one)
            except InvalidInput as error:
                raise InvalidInput(f"{problem.where or problem.id}: {error}") from error
            except Unreachable:
                raise
            except (Unavailable, Overloaded) as error:
                one.refusals.append(f"{problem.where or problem.id}: {error}")
                return
        votes = await count_votes(problem, tree.draws, self._verifier)
        result = ProblemResult.of(problem.id, problem_hash(problem), tree, votes)
        one.results[problem.id] = result
        one.file.append(result)
        self._on_answer()

    async def _grow(self, problem: EncodedProblem, one: SetResults) -> ScoredTree:
        request = one.held_out.request(problem, self._seed)
        for _ in range(_TRIES - 1):
            try:
                return await next(self._clients).grow(request, ANSWER_SECONDS)
            except Unreachable:
                raise
            except (Unavailable, Overloaded):
                await asyncio.sleep(_PAUSE_SECONDS)
        return await next(self._clients).grow(request, ANSWER_SECONDS)
