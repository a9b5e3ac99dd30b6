"""Judges mathematical answers: in this process if exact and numeric comparison decide, else in workers."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, NamedTuple

from pydantic import Field

from services.verifier.checks.check import (
    AnswerKey,
    Case,
    Check,
    Judgement,
    ReportJudgement,
    name_answer,
    read_key,
    run_concurrently,
    yielding,
)
from services.verifier.checks.final_answer import FinalAnswer, extract_final_answer
from services.verifier.checks.math.comparing.equivalence import Equivalence
from services.verifier.checks.math.decision import decide, decide_as_written
from services.verifier.checks.math.reading.parsed_answer import extract_gold, parse_answer
from services.verifier.config import MathConfig, MathExtraction, Ways
from services.verifier.metrics import VerifierMetrics
from services.verifier.workers.pool import PoolSettings, Reply, ReplyStatus, WorkerPool, open_worker_pool
from shared.errors import InvalidInput
from shared.protocol.verdict import Outcome, VerdictItem
from shared.runtime.logs import event_logger

log = event_logger(__name__)

_NO_ANSWER = Judgement(0.0, Outcome.NO_ANSWER, "no final answer after the last thinking part", "extraction")
_RULE = "math-verify"
_WORKER_FUNCTION = "services.verifier.checks.math.worker_function:judge_answer"
# Of gold and answer together; longer ones would hold up the event loop. Of 3,000 public answers one is longer.
_MAX_DECIDED_HERE = 192
# What a worker is not done with by then waits until the others are judged.
_FIRST_SECONDS = 0.5
_TRIED_AGAIN = frozenset({Outcome.TIMED_OUT, Outcome.INFRASTRUCTURE})


class MathKey(AnswerKey):
    r"""The right answer, in LaTeX or plain. If it has a \boxed{}, what is in the box counts."""

    gold: str = Field(min_length=1)
    extraction: Ways[MathExtraction] | None = None


class GoldAndAnswer(NamedTuple):
    """What the gold states, and the response's final answer (None if it states none)."""

    gold: str
    answer: FinalAnswer | None


# A case for the workers, and its position.
_Undecided = tuple[int, Case[GoldAndAnswer]]


@asynccontextmanager
async def open_math_check(config: MathConfig, metrics: VerifierMetrics) -> AsyncIterator["MathCheck"]:
    if find_spec("gmpy2") is not None:
        raise InvalidInput(
            "gmpy2 can be imported, and with it some answers never end, not even by a signal: uninstall gmpy2 "
            "from the verifier's environment"
        )
    settings = PoolSettings("math", _WORKER_FUNCTION, config.workers, config.memory_bytes, config.items_per_worker)
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(open_worker_pool(settings, metrics)) if config.workers else None
        yield MathCheck(config, pool)


class MathCheck(Check[GoldAndAnswer]):
    """Right if the final answer says what the gold says (docs/verifier-math.md has the rules)."""

    kind = "math"
    is_repeatable = True

    def __init__(self, config: MathConfig, pool: WorkerPool | None) -> None:
        self._config = config
        self._pool = pool
        self._may_be_slow = asyncio.Semaphore(max(1, config.workers // 2))

    def health(self) -> Mapping[str, Any]:
        return {"workers": self._config.workers, "live": self._pool.num_live if self._pool else 0}

    def prepare(self, item: VerdictItem) -> Case[GoldAndAnswer]:
        key = read_key(MathKey, item)
        max_characters = self._config.answer_characters
        gold = extract_gold(key.gold, max_characters)
        if gold is None:
            raise InvalidInput(f"item {item.id!r}: the gold states no answer of 1 to {max_characters} characters")
        answer = extract_final_answer(item.response, max_characters, key.extraction or self._config.extraction)
        return Case("", GoldAndAnswer(gold, answer), item.limits)

    async def judge(self, cases: Sequence[Case[GoldAndAnswer]], report: ReportJudgement) -> None:
        undecided: list[_Undecided] = []
        async for position, case in yielding(cases):
            judgement = _decide_or_fail(position, case.key)
            if judgement is not None:
                report(position, judgement)
            else:
                undecided.append((position, case))
        slow: list[_Undecided] = []

        async def judge_soon(undecided: _Undecided) -> None:
            position, case = undecided
            seconds = self._seconds_of(case)
            judgement = await self._judge_by_worker(undecided, min(seconds, _FIRST_SECONDS))
            if judgement.outcome in _TRIED_AGAIN and seconds > _FIRST_SECONDS:
                slow.append(undecided)
            else:
                report(position, judgement)

        async def judge_slow(undecided: _Undecided) -> None:
            position, case = undecided
            async with self._may_be_slow:
                report(position, await self._judge_by_worker(undecided, self._seconds_of(case)))

        concurrency = max(self._config.workers, 1)
        await run_concurrently(undecided, concurrency, judge_soon)
        await run_concurrently(slow, concurrency, judge_slow)

    def _seconds_of(self, case: Case[GoldAndAnswer]) -> float:
        limit = None if case.limits is None else case.limits.wall_seconds
        return self._config.item_seconds if limit is None else min(self._config.item_seconds, limit)

    async def _judge_by_worker(self, undecided: _Undecided, seconds: float) -> Judgement:
        position, case = undecided
        if self._pool is None:
            judgement = await asyncio.to_thread(_decide_or_fail, position, case.key, math.inf)
            return judgement or Judgement.failure("not decided without workers, and math.workers is 0", _RULE)
        start = time.perf_counter()
        assert case.key.answer is not None  # or it had been judged
        reply = await self._pool.call((case.key.gold, asdict(case.key.answer)), seconds)
        return _to_judgement(reply, time.perf_counter() - start, _name_stated(case.key.answer))


_parse_gold = lru_cache(maxsize=1_024)(parse_answer)  # the leaves of a tree share their gold


def _decide_or_fail(position: int, key: GoldAndAnswer, max_characters: float = _MAX_DECIDED_HERE) -> Judgement | None:
    """The judgement; None if a worker should give it: for a longer answer, or one that math-verify must compare."""
    if key.answer is None:
        return _NO_ANSWER
    start = time.perf_counter()
    try:
        decision = decide_as_written(key.gold, key.answer)
        if decision is None:
            if len(key.gold) + sum(map(len, {*key.answer.stated, *key.answer.boxes})) > max_characters:
                return None
            decision = decide(_parse_gold(key.gold), key.answer)
    except Exception as error:
        log.exception("answer_failed", position=position)
        return Judgement.failure(f"{type(error).__name__} while comparing", _RULE)
    if decision.equivalence is Equivalence.UNKNOWN:
        return None
    seconds = time.perf_counter() - start
    is_right = decision.equivalence is Equivalence.SAME
    outcome = Outcome.RIGHT if is_right else Outcome.WRONG
    stated = _name_stated(key.answer)
    return Judgement(float(is_right), outcome, decision.reason, decision.rule, seconds, seconds, final_answer=stated)


def _name_stated(answer: FinalAnswer) -> str:
    return name_answer(", ".join(answer.stated))


def _to_judgement(reply: Reply, seconds: float, stated: str) -> Judgement:
    ended_early = {ReplyStatus.TIMED_OUT: Outcome.TIMED_OUT, ReplyStatus.MEMORY: Outcome.MEMORY}
    if reply.status is ReplyStatus.ANSWERED and reply.value is not None:
        is_right, rule, reason = reply.value
        outcome = Outcome.RIGHT if is_right else Outcome.WRONG
        return Judgement(float(is_right), outcome, reason, rule, seconds, reply.cpu_seconds, final_answer=stated)
    if reply.status in ended_early:
        outcome = ended_early[reply.status]
        return Judgement(0.0, outcome, reply.detail, _RULE, seconds, reply.cpu_seconds, final_answer=stated)
    return Judgement.failure(reply.detail, _RULE)
