"""Held-out accuracy of one policy version, measured through the rollout replicas (METHOD, probe)."""

import asyncio
import contextlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from services.learner.held_out.measure import average_sets, measure_set
from services.learner.held_out.problem_set import HeldOutProblems, problem_hash
from services.learner.held_out.results import Header, ProblemResult, ResultsFile, remove_old
from services.learner.held_out.voting import count_votes
from services.learner.held_out_config import EvaluationConfig
from services.learner.queue.problems import EncodedProblem
from services.learner.waits import Wait
from shared.clients import RolloutClient, VerifierClient
from shared.errors import IbtpoError, Overloaded, Unavailable
from shared.protocol.replica import ReplicaInfo, ReplicaState
from shared.protocol.status import Evaluation
from shared.protocol.tree import ScoredTree
from shared.protocol.waiting import WaitKind
from shared.runtime.logs import event_logger
from shared.streams import RunStreams
from shared.tree.draw import WeightVersion

log = event_logger(__name__)
_MAX_TRIES = 8
_RETRY_SHARE = 0.25
"""A problem is retried for this share of the evaluation's time, counted from its first failure."""
_PAUSE_SECONDS = 0.5
_TREE_SECONDS = 120.0
_FEW = 3
_SEED = 0
"""Of answers: as `ibtpo eval` has it without --seed."""


@dataclass(frozen=True, slots=True)
class Probe:
    """An evaluation, with those of its trees that were grown for it now, all sampled by the evaluated version."""

    evaluation: Evaluation
    trees: tuple[ScoredTree, ...]


@dataclass(slots=True)
class _Answering:
    """One set while its problems are answered: the results so far, and the file that they are in."""

    held_out: HeldOutProblems
    file: ResultsFile
    results: dict[str, ProblemResult]


class Evaluator:
    """Asks the live replicas for k independent answers to every held-out problem; asks another replica if one dies.

    What was answered to each problem is written to `folder`/STEP/SET.jsonl as it comes, and an evaluation of the same
    weights that was interrupted goes on from there.
    """

    def __init__(
        self,
        streams: RunStreams,
        http: httpx.AsyncClient,
        sets: Sequence[HeldOutProblems],
        config: EvaluationConfig,
        folder: Path,
        verifier: VerifierClient | None,
    ) -> None:
        self._http = http
        self._sets = tuple(sets)
        self._config = config
        self._streams = streams
        self._folder = folder
        self._verifier = verifier

    def is_due(self, step: int) -> bool:
        """Whether a set is measured after `step` steps that are not the last."""
        return any(one.plan.is_due(step) for one in self._sets)

    async def evaluate(
        self, step: int, version: WeightVersion, weights: str, wait: Wait | None = None, *, of_all: bool = True
    ) -> Probe | None:
        """The accuracy of exactly `version`, whose weights have the hash `weights`, on the sets that are due at this
        step or on all, over the problems answered before the deadline.

        Answers of other versions are discarded. Unavailable when no problem was answered; None without held-out
        problems.
        """
        due = [one for one in self._sets if of_all or one.plan.is_due(step)]
        if not due:
            return None
        replicas = _ReplicaPool(self._streams, self._config.problems_per_replica)
        under_way = [self._begin(one, step, weights) for one in due]
        trees: list[ScoredTree] = []
        counted = wait or Wait(WaitKind.EVALUATION)
        counted.begin(sum(len(one.results) for one in under_way), sum(len(one.held_out.problems) for one in under_way))
        counted.detail = lambda: _describe_open(under_way)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._config.deadline_seconds), asyncio.TaskGroup() as group:
                for answering in under_way:
                    for problem in answering.held_out.problems:
                        if problem.id not in answering.results:
                            task = group.create_task(self._answer(problem, answering, version, replicas, trees))
                            task.add_done_callback(lambda _: counted.advance())
        return Probe(self._measure(under_way, step, version, len(due) < len(self._sets)), tuple(trees))

    def _begin(self, held_out: HeldOutProblems, step: int, weights: str) -> _Answering:
        """With the results that an earlier process has of the same weights, problems and settings."""
        plan, file = held_out.plan, ResultsFile(self._folder / str(step), held_out.plan.name)
        header = Header(set=plan.name, weights=weights, settings=plan.settings)
        there, found = file.read()
        hash_of = {problem.id: problem_hash(problem) for problem in held_out.problems}
        kept = {one.id: one for one in found.values() if there == header and hash_of.get(one.id) == one.problem}
        if kept:
            log.info("evaluation_resumed", set=plan.name, step=step, answered=len(kept), problems=len(hash_of))
        file.begin(header, kept)
        return _Answering(held_out, file, kept)

    def _measure(
        self, under_way: Sequence[_Answering], step: int, version: WeightVersion, is_partial: bool
    ) -> Evaluation:
        measured = []
        for one in under_way:
            one.file.finish()
            plan, problems = one.held_out.plan, one.held_out.problems
            if missing := len(problems) - len(one.results):
                log.error(
                    "evaluation_incomplete",
                    version=str(version),
                    set=plan.name,
                    problems=len(problems),
                    missing=missing,
                )
            order = [one.results[problem.id] for problem in problems if problem.id in one.results]
            if accuracy := measure_set(plan, order):
                measured.append(accuracy)
        remove_old(self._folder, self._config.keep)
        if not measured:
            raise Unavailable(
                f"no answer of version {version} was judged in time: do live replicas have it, and is the verifier up?"
            )
        is_partial = is_partial or len(measured) < len(under_way)
        return average_sets(measured, step, version, is_partial=is_partial)

    async def _answer(
        self,
        problem: EncodedProblem,
        answering: _Answering,
        version: WeightVersion,
        replicas: "_ReplicaPool",
        trees: list[ScoredTree],
    ) -> None:
        """Adds one problem's result and tree, unless every try fails.

        A refusal is retried a few times; an overload or outage for a share of the evaluation's time, so that a problem
        that never gets a verdict does not take all of it.
        """
        request = answering.held_out.request(problem, _SEED)
        refusals, first_failure = 0, math.inf
        while refusals < _MAX_TRIES and _now() - first_failure < self._config.deadline_seconds * _RETRY_SHARE:
            replica = await replicas.acquire()
            try:
                client = RolloutClient(self._http, replica.url, replica.name)
                tree = await client.grow(request, _TREE_SECONDS)
                if all(span.version == version for draw in tree.draws for span in draw.spans):
                    trees.append(tree)
                    break
                replicas.pause(replica)
            except (Unavailable, Overloaded) as error:
                replicas.pause(replica)
                log.info("evaluation_retried", problem=problem.id, replica=replica.name, error=str(error))
            except IbtpoError as error:
                refusals += 1
                log.warning("evaluation_refused", problem=problem.id, replica=replica.name, error=str(error))
            finally:
                replicas.release(replica)
            first_failure = min(first_failure, _now())
        else:
            log.error("problem_not_evaluated", problem=problem.id, refusals=refusals)
            return
        votes = await count_votes(problem, tree.draws, self._verifier)
        result = ProblemResult.of(problem.id, problem_hash(problem), tree, votes)
        answering.results[problem.id] = result
        answering.file.append(result)


def _describe_open(under_way: Sequence[_Answering]) -> str:
    """How far each set is, where there are several, and the last problems that are without answers."""
    said = [f"{one.held_out.plan.name} {len(one.results)} of {len(one.held_out.problems)}" for one in under_way]
    still = [p.id for one in under_way for p in one.held_out.problems if p.id not in one.results]
    last = f"open: {', '.join(still)}" if 0 < len(still) <= _FEW else ""
    return "; ".join([*(said if len(said) > 1 else ()), *([last] if last else ())])


class _ReplicaPool:
    """The replicas that serve now, each for at most `limit` problems at a time."""

    def __init__(self, streams: RunStreams, limit: int) -> None:
        self._streams = streams
        self._limit = limit
        self._in_use: Counter[str] = Counter()
        self._paused_until: dict[str, float] = {}
        self._live: list[ReplicaInfo] = []
        self._refreshed = -math.inf
        self._first_come = asyncio.Lock()
        self._released = asyncio.Event()

    async def acquire(self) -> ReplicaInfo:
        """The least used free replica; waits for one, first come, first served."""
        async with self._first_come:
            while not (free := [replica for replica in await self._refresh() if self._is_free(replica)]):
                self._released.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._released.wait(), _PAUSE_SECONDS)
            chosen = min(free, key=lambda replica: self._in_use[replica.name])
            self._in_use[chosen.name] += 1
            return chosen

    def release(self, replica: ReplicaInfo) -> None:
        self._in_use[replica.name] -= 1
        self._released.set()

    def pause(self, replica: ReplicaInfo) -> None:
        """Leaves the replica alone for a moment."""
        self._paused_until[replica.name] = _now() + _PAUSE_SECONDS

    def _is_free(self, replica: ReplicaInfo) -> bool:
        is_paused = self._paused_until.get(replica.name, 0.0) > _now()
        return self._in_use[replica.name] < self._limit and not is_paused

    async def _refresh(self) -> list[ReplicaInfo]:
        """The replicas that serve, as of a moment ago."""
        if _now() - self._refreshed >= _PAUSE_SECONDS:
            self._refreshed = _now()
            try:
                replicas = await self._streams.replicas.live()
                self._live = [replica for replica in replicas if replica.state is ReplicaState.SERVING]
            except Unavailable as error:
                log.warning("replicas_unknown", error=str(error))
        return self._live


def _now() -> float:
    return asyncio.get_running_loop().time()
