"""Mathematical answers: decided here where exact and numeric comparison will do, else by math-verify's workers."""

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from types import TracebackType
from typing import Any, Self

from pydantic import Field

from services.verifier.checks.answer_key import AnswerKey, read_key
from services.verifier.checks.check import Case, Judgement, ReportJudgement
from services.verifier.checks.final_answer import FinalAnswer, extract_final_answer
from services.verifier.checks.math.comparing.equivalence import Equivalence
from services.verifier.checks.math.decision import Decision, decide
from services.verifier.checks.math.reading.parsed_answer import ParsedAnswer, extract_gold, parse_answer
from services.verifier.config import MathConfig
from services.verifier.metrics import VerifierMetrics
from services.verifier.workers.pool import PoolSettings, Reply, ReplyStatus, WorkerPool
from shared.errors import InvalidInput
from shared.protocol.verdict import Outcome, VerdictItem
from shared.runtime.logs import event_logger

log = event_logger(__name__)

_NO_ANSWER = Judgement(0.0, Outcome.NO_ANSWER, "no boxed answer after the last thinking part", "extraction")
_RULE = "math-verify"
# How long the event loop is kept from others.
_YIELD_SECONDS = 0.005


class MathKey(AnswerKey):
    r"""The right answer, in LaTeX or plain; a text with a \boxed{} stands for what is in it."""

    gold: str = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class GoldAndAnswer:
    """The gold as read, and what the response states as its final answer."""

    gold: ParsedAnswer
    answer: FinalAnswer | None


class MathCheck:
    """Right when the final answer says what the gold says (docs/verifier.md has the rules)."""

    kind = "math"
    is_repeatable = True

    def __init__(self, config: MathConfig, metrics: VerifierMetrics) -> None:
        self._config = config
        self._pool = WorkerPool(_pool_settings(config), metrics) if config.workers else None
        self._stack = AsyncExitStack()
        # the leaves of a tree share their gold
        self._read_gold = lru_cache(maxsize=1_024)(self._parse_gold)

    async def __aenter__(self) -> Self:
        if find_spec("gmpy2") is not None:
            raise InvalidInput(
                "gmpy2 can be imported, and with it some answers never end, not even by a signal: uninstall gmpy2 "
                "from the verifier's environment"
            )
        if self._pool is not None:
            await self._stack.enter_async_context(self._pool)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def refusal(self) -> str | None:
        return None

    def health(self) -> Mapping[str, Any]:
        return {"workers": self._config.workers, "live": self._pool.num_live if self._pool else 0}

    def prepare(self, item: VerdictItem) -> Case[GoldAndAnswer]:
        gold = self._read_gold(read_key(MathKey, item).gold)
        if gold is None:
            raise InvalidInput(
                f"item {item.id!r}: the gold states no answer of 1 to {self._config.answer_characters} characters"
            )
        return Case(
            "", GoldAndAnswer(gold, extract_final_answer(item.response, self._config.answer_characters)), item.limits
        )

    def _parse_gold(self, gold: str) -> ParsedAnswer | None:
        text = extract_gold(gold, self._config.answer_characters)
        return None if text is None else parse_answer(text)

    async def judge(self, cases: Sequence[Case[GoldAndAnswer]], report: ReportJudgement) -> None:
        open_cases: list[_Undecided] = []
        last_yield = time.perf_counter()
        for position, case in enumerate(cases):
            found = self._decide_case(position, case.key)
            if isinstance(found, Judgement):
                report(position, found)
            else:
                open_cases.append(_Undecided(position, case, found))
            if time.perf_counter() - last_yield > _YIELD_SECONDS:
                await asyncio.sleep(0)
                last_yield = time.perf_counter()
        if open_cases:
            await self._ask_workers(open_cases, report)

    def _decide_case(self, position: int, question: GoldAndAnswer) -> Judgement | Decision:
        try:
            return _decide_case(question)
        except Exception as error:
            log.exception("answer_failed", position=position)
            return Judgement.failure(f"{type(error).__name__} while comparing", _RULE)

    async def _ask_workers(self, open_cases: Sequence["_Undecided"], report: ReportJudgement) -> None:
        """As many at once as there are workers."""
        waiting = iter(open_cases)
        async with asyncio.TaskGroup() as group:
            for _ in range(min(len(open_cases), max(self._config.workers, 1))):
                group.create_task(self._work_through(waiting, report))

    async def _work_through(self, waiting: Iterator["_Undecided"], report: ReportJudgement) -> None:
        for one in waiting:
            report(one.position, await self._ask(one))

    async def _ask(self, one: "_Undecided") -> Judgement:
        if self._pool is None:
            return Judgement.failure("not decided without workers, and math.workers is 0", _RULE)
        seconds = self._config.item_seconds
        if one.case.limits is not None and one.case.limits.wall_seconds is not None:
            seconds = min(seconds, one.case.limits.wall_seconds)
        start = time.perf_counter()
        reply = await self._pool.ask((one.case.key.gold.text, one.decision.text), seconds)
        return _judgement(reply, time.perf_counter() - start)


def _pool_settings(config: MathConfig) -> PoolSettings:
    target = "services.verifier.checks.math.math_verify_function:are_same"
    return PoolSettings("math", target, config.workers, config.memory_bytes, config.items_per_worker)


@dataclass(frozen=True, slots=True)
class _Undecided:
    """A case that takes a worker."""

    position: int
    case: Case[GoldAndAnswer]
    decision: Decision


def _decide_case(question: GoldAndAnswer) -> Judgement | Decision:
    if question.answer is None:
        return _NO_ANSWER
    start = time.perf_counter()
    decision = decide(question.gold, question.answer)
    if decision.equivalence is Equivalence.UNKNOWN:
        return decision
    seconds = time.perf_counter() - start
    if decision.equivalence is Equivalence.SAME:
        return Judgement(1.0, Outcome.RIGHT, decision.reason, decision.rule, seconds, seconds)
    return Judgement(0.0, Outcome.WRONG, decision.reason, decision.rule, seconds, seconds)


def _judgement(reply: Reply, seconds: float) -> Judgement:
    match reply.status:
        case ReplyStatus.ANSWERED if reply.value:
            return Judgement(1.0, Outcome.RIGHT, "", _RULE, seconds, reply.cpu_seconds)
        case ReplyStatus.ANSWERED:
            reason = f"not shown to be the gold {reply.detail}".strip()
            return Judgement(0.0, Outcome.WRONG, reason, _RULE, seconds, reply.cpu_seconds)
        case ReplyStatus.TIMED_OUT:
            return Judgement(0.0, Outcome.TIMED_OUT, reply.detail, _RULE, seconds, reply.cpu_seconds)
        case ReplyStatus.MEMORY:
            return Judgement(0.0, Outcome.MEMORY, reply.detail, _RULE, seconds, reply.cpu_seconds)
        case _:
            return Judgement.failure(reply.detail, _RULE)
