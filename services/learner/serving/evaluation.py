"""Held-out accuracy of one policy version, measured through the rollout replicas (METHOD, probe)."""

import asyncio
import contextlib
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import httpx

from services.learner.config import EvaluationConfig
from services.learner.queue.problems import EncodedProblem
from shared.clients import RolloutClient
from shared.errors import IbtpoError, Overloaded, Unavailable
from shared.protocol.grow import GrowRequest
from shared.protocol.replica import ReplicaInfo, ReplicaState
from shared.protocol.status import Evaluation
from shared.protocol.task import Growth
from shared.protocol.tree import ScoredTree
from shared.runtime.logs import event_logger
from shared.streams import RunStreams
from shared.tree.diagnostics import measure_accuracy
from shared.tree.draw import WeightVersion
from shared.tree.expansion import IndependentSampler

log = event_logger(__name__)
_MAX_TRIES = 8
_PATIENCE = 0.25
"""Of an evaluation's time, for one problem, from its first failure on."""
_REST_SECONDS = 0.5
_TREE_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Probe:
    """An evaluation, and the answers it comes from: sampled by exactly the weights that the learner has."""

    evaluation: Evaluation
    trees: tuple[ScoredTree, ...]


class Evaluator:
    """Asks the live replicas for k independent answers to every held-out problem, and asks another when one dies."""

    def __init__(
        self,
        streams: RunStreams,
        http: httpx.AsyncClient,
        problems: Sequence[EncodedProblem],
        growth: Growth,
        config: EvaluationConfig,
    ) -> None:
        self._http = http
        self._problems = problems[: config.problems]
        self._growth = probe_growth(growth, config)
        self._config = config
        self._streams = streams

    async def evaluate(self, step: int, version: WeightVersion) -> Probe | None:
        """avg@k and pass@k of exactly `version`: answers of a replica that has not got it yet are thrown away.

        Of the problems that were answered by the deadline; Unavailable when none was. None without held-out problems.
        """
        if not self._problems:
            return None
        seats = _Seats(self._streams, self._config.problems_per_replica)
        answers: dict[int, ScoredTree] = {}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._config.deadline_seconds), asyncio.TaskGroup() as group:
                for number in range(len(self._problems)):
                    group.create_task(self._answer(number, version, seats, answers))
        if missing := len(self._problems) - len(answers):
            log.error("evaluation_incomplete", version=str(version), problems=len(self._problems), missing=missing)
        trees = tuple(answers[number] for number in sorted(answers))
        return Probe(make_evaluation((tree.rewards for tree in trees), step, version, self._config.k), trees)

    async def _answer(
        self, number: int, version: WeightVersion, seats: "_Seats", answers: dict[int, ScoredTree]
    ) -> None:
        """Puts one problem's judged answers among the others, unless every try fails.

        What a replica refuses is tried a few times; what it cannot do now, for a share of the evaluation's time: a
        problem that never gets a verdict must not cost all of it.
        """
        request = self._request(number)
        failures, first_failure = 0, math.inf
        while failures < _MAX_TRIES and _now() - first_failure < self._config.deadline_seconds * _PATIENCE:
            replica = await seats.take()
            try:
                tree = await self._ask(replica, request)
                if all(span.version == version for draw in tree.draws for span in draw.spans):
                    answers[number] = tree
                    return
                seats.rest(replica)
            except (Unavailable, Overloaded) as error:
                seats.rest(replica)
                log.info(
                    "evaluation_moves_on", problem=self._problems[number].id, replica=replica.name, error=str(error)
                )
            except IbtpoError as error:
                failures += 1
                log.warning(
                    "evaluation_try_failed", problem=self._problems[number].id, replica=replica.name, error=str(error)
                )
            finally:
                seats.leave(replica)
            first_failure = min(first_failure, _now())
        log.error("problem_not_evaluated", problem=self._problems[number].id, refused=failures)

    def _request(self, number: int) -> GrowRequest:
        problem = self._problems[number]
        return GrowRequest(
            prompt_ids=problem.prompt_ids,
            kind=problem.kind,
            answer_key=problem.answer_key,
            growth=self._growth,
            seed=number,
        )

    async def _ask(self, replica: ReplicaInfo, request: GrowRequest) -> ScoredTree:
        return await RolloutClient(self._http, replica.url, replica.name).grow(request, _TREE_SECONDS)


class _Seats:
    """Places for problems on the replicas that serve now, a bounded number on each."""

    def __init__(self, streams: RunStreams, per_replica: int) -> None:
        self._streams = streams
        self._per_replica = per_replica
        self._taken: Counter[str] = Counter()
        self._rests_until: dict[str, float] = {}
        self._live: list[ReplicaInfo] = []
        self._looked = -math.inf
        self._turn = asyncio.Lock()
        self._left = asyncio.Event()

    async def take(self) -> ReplicaInfo:
        """A place on the replica with the most of them free; waits for one, in turn: the first alone looks around."""
        async with self._turn:
            while not (free := [replica for replica in await self._look() if self._is_free(replica)]):
                self._left.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._left.wait(), _REST_SECONDS)
            chosen = min(free, key=lambda replica: self._taken[replica.name])
            self._taken[chosen.name] += 1
            return chosen

    def leave(self, replica: ReplicaInfo) -> None:
        """Gives the place back."""
        self._taken[replica.name] -= 1
        self._left.set()

    def rest(self, replica: ReplicaInfo) -> None:
        """Leaves the replica alone for a while."""
        self._rests_until[replica.name] = _now() + _REST_SECONDS

    def _is_free(self, replica: ReplicaInfo) -> bool:
        rests = self._rests_until.get(replica.name, 0.0) > _now()
        return self._taken[replica.name] < self._per_replica and not rests

    async def _look(self) -> list[ReplicaInfo]:
        """The replicas that serve, as of a moment ago."""
        if _now() - self._looked >= _REST_SECONDS:
            self._looked = _now()
            try:
                replicas = await self._streams.replicas.live()
                self._live = [replica for replica in replicas if replica.state is ReplicaState.SERVING]
            except Unavailable as error:
                log.warning("replicas_unknown", error=str(error))
        return self._live


def _now() -> float:
    return asyncio.get_running_loop().time()


def probe_growth(growth: Growth, config: EvaluationConfig) -> Growth:
    """k independent answers, sampled as in training."""
    return growth.model_copy(
        update={
            "sampler": IndependentSampler(initial_draws=config.k),
            "max_tokens": config.max_tokens or growth.max_tokens,
            "merge_equal_draws": False,
        }
    )


def make_evaluation(rewards: Iterable[Sequence[float]], step: int, version: WeightVersion, k: int) -> Evaluation:
    """avg@k, its standard error over problems, and pass@k (one answer with the full reward), of what was judged."""
    accuracy = measure_accuracy(rewards)
    if accuracy is None:
        raise Unavailable(
            f"no answer of version {version} was judged in time: do live replicas have it, and is the verifier up?"
        )
    return Evaluation(
        step=step,
        version=version,
        k=k,
        avg_at_k=accuracy.avg_at_k,
        pass_at_k=accuracy.pass_at_k,
        problems=accuracy.num_problems,
        standard_error=accuracy.avg_error,
    )
