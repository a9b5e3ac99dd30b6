"""Held-out accuracy of one policy version, measured through the rollout replicas (METHOD, probe)."""

import asyncio
import contextlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import httpx

from services.learner.config import EvaluationConfig
from services.learner.queue.problems import EncodedProblem, first_of_each_file
from shared.clients import RolloutClient
from shared.errors import IbtpoError, Overloaded, Unavailable
from shared.protocol.grow import GrowRequest
from shared.protocol.replica import ReplicaInfo, ReplicaState
from shared.protocol.status import Evaluation, FileAccuracy
from shared.protocol.task import Growth
from shared.protocol.tree import ScoredTree
from shared.runtime.logs import event_logger
from shared.streams import RunStreams
from shared.tree.accuracy import measure_accuracy
from shared.tree.draw import WeightVersion
from shared.tree.expansion import IndependentSampler

log = event_logger(__name__)
_MAX_TRIES = 8
_RETRY_SHARE = 0.25
"""A problem is retried for this share of the evaluation's time, counted from its first failure."""
_PAUSE_SECONDS = 0.5
_TREE_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Probe:
    """An evaluation with its trees, all sampled by the evaluated version."""

    evaluation: Evaluation
    trees: tuple[ScoredTree, ...]


class Evaluator:
    """Asks the live replicas for k independent answers to every held-out problem; asks another replica if one dies."""

    def __init__(
        self,
        streams: RunStreams,
        http: httpx.AsyncClient,
        problems: Sequence[EncodedProblem],
        growth: Growth,
        config: EvaluationConfig,
    ) -> None:
        self._http = http
        self._problems = first_of_each_file(problems, config.problems)
        # k independent answers, sampled as in training
        sampler, max_tokens = IndependentSampler(initial_draws=config.k), config.max_tokens or growth.max_tokens
        changes = {"sampler": sampler, "max_tokens": max_tokens, "merge_equal_draws": False}
        self._growth = growth.model_copy(update=changes)
        self._config = config
        self._streams = streams

    async def evaluate(self, step: int, version: WeightVersion) -> Probe | None:
        """avg@k and pass@k of exactly `version`, over the problems answered before the deadline.

        Answers of other versions are discarded. Unavailable when no problem was answered; None without held-out
        problems.
        """
        if not self._problems:
            return None
        replicas = _ReplicaPool(self._streams, self._config.problems_per_replica)
        answers: dict[int, ScoredTree] = {}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._config.deadline_seconds), asyncio.TaskGroup() as group:
                for number in range(len(self._problems)):
                    group.create_task(self._answer(number, version, replicas, answers))
        if missing := len(self._problems) - len(answers):
            log.error("evaluation_incomplete", version=str(version), problems=len(self._problems), missing=missing)
        rewards_of_file: dict[str, list[Sequence[float]]] = {problem.file: [] for problem in self._problems}
        for number in sorted(answers):
            rewards_of_file[self._problems[number].file].append(answers[number].rewards)
        evaluation = make_evaluation(rewards_of_file, step, version, self._config.k)
        return Probe(evaluation, tuple(answers[number] for number in sorted(answers)))

    async def _answer(
        self, number: int, version: WeightVersion, replicas: "_ReplicaPool", answers: dict[int, ScoredTree]
    ) -> None:
        """Adds one problem's tree to `answers`, unless every try fails.

        A refusal is retried a few times; an overload or outage for a share of the evaluation's time, so that a problem
        that never gets a verdict does not take all of it.
        """
        problem = self._problems[number]
        request = GrowRequest(
            prompt_ids=problem.prompt_ids,
            kind=problem.kind,
            answer_key=problem.answer_key,
            growth=self._growth,
            seed=number,
        )
        refusals, first_failure = 0, math.inf
        while refusals < _MAX_TRIES and _now() - first_failure < self._config.deadline_seconds * _RETRY_SHARE:
            replica = await replicas.acquire()
            try:
                client = RolloutClient(self._http, replica.url, replica.name)
                tree = await client.grow(request, _TREE_SECONDS)
                if all(span.version == version for draw in tree.draws for span in draw.spans):
                    answers[number] = tree
                    return
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
        log.error("problem_not_evaluated", problem=problem.id, refusals=refusals)


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


def make_evaluation(
    rewards_of_file: Mapping[str, Sequence[Sequence[float]]], step: int, version: WeightVersion, k: int
) -> Evaluation:
    """The accuracy over the problems of all files, and of each. Unavailable when none was judged.

    The rewards are those of each problem's answers, by the file that it is from.
    """
    accuracy = _accuracy_figures(chain.from_iterable(rewards_of_file.values()))
    if accuracy is None:
        raise Unavailable(
            f"no answer of version {version} was judged in time: do live replicas have it, and is the verifier up?"
        )
    names = Counter(Path(file).name for file in rewards_of_file)
    measured = (
        (Path(file).name if names[Path(file).name] == 1 else file, _accuracy_figures(rewards))
        for file, rewards in rewards_of_file.items()
    )
    files = tuple(FileAccuracy(file=name, **figures) for name, figures in measured if figures)
    return Evaluation(step=step, version=version, k=k, files=files, **accuracy)


def _accuracy_figures(rewards: Iterable[Sequence[float]]) -> dict[str, Any] | None:
    """The fields of an AccuracyFigures; None when no problem was judged."""
    measured = measure_accuracy(rewards)
    if measured is None:
        return None
    return {
        "avg_at_k": measured.avg_at_k,
        "pass_at_k": measured.pass_at_k,
        "problems": measured.num_problems,
        "standard_error": measured.avg_error,
    }
