"""The heart of the verifier: admits batches, and has every item judged by the check of its kind."""

import asyncio
import time
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.verifier.checks.check import LONG_RESPONSE, Case, Check, Judgement, ReportJudgement, yielding
from services.verifier.metrics import BatchRefusal, VerifierMetrics
from shared.errors import InvalidInput, Overloaded, Unavailable
from shared.protocol.verdict import Outcome, VerdictItem
from shared.runtime.logs import event_logger

log = event_logger(__name__)


# These depend on nothing but the answer and its key; a time-out may be the machine's.
_CACHEABLE = frozenset({Outcome.RIGHT, Outcome.WRONG, Outcome.NO_ANSWER})
_MAX_RESPONSE_CHARACTERS = 4_096


class JudgementCache:
    """Keeps up to `max_entries` judgements, by (kind, answer, key); drops the least recently used; 0 keeps none."""

    def __init__(self, max_entries: int) -> None:
        self._max_entries = max_entries
        self._judgements: OrderedDict[tuple[str, Case[Any]], Judgement] = OrderedDict()

    def __len__(self) -> int:
        return len(self._judgements)

    def get(self, kind: str, case: Case[Any]) -> Judgement | None:
        found = self._judgements.get((kind, case))
        if found is not None:
            self._judgements.move_to_end((kind, case))
        return found

    def put(self, kind: str, case: Case[Any], judgement: Judgement) -> None:
        is_cacheable = judgement.outcome in _CACHEABLE and len(case.response) <= _MAX_RESPONSE_CHARACTERS
        if self._max_entries and is_cacheable:
            self._judgements[kind, case] = judgement
            if len(self._judgements) > self._max_entries:
                self._judgements.popitem(last=False)


@dataclass(frozen=True, slots=True)
class KindGroup:
    """The items of one kind in a batch, and their positions in it."""

    check: Check[Any]
    positions: list[int] = field(default_factory=list)
    cases: list[Case[Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class AdmittedBatch:
    """A batch with known kinds and readable keys, counted as pending until it is judged.

    `unreadable`: why the items at these positions, which are in no group, cannot be judged.
    """

    num_items: int
    groups: tuple[KindGroup, ...]
    unreadable: Mapping[int, str]
    arrived: float


class Judge:
    """Judges batches; each kind has its check."""

    def __init__(self, metrics: VerifierMetrics, max_pending_items: int, cache: JudgementCache) -> None:
        self._check_of_kind: dict[str, Check[Any]] = {}
        self._metrics = metrics
        self._max_pending_items = max_pending_items
        self._num_pending = 0
        self._batches: dict[int, AdmittedBatch] = {}  # in the order of their arrival
        self._cache = cache
        metrics.queue_age_seconds.set_function(self._queue_age_seconds)

    def add(self, check: Check[Any]) -> None:
        """Adds a started check, or replaces the one of its kind."""
        self._check_of_kind[check.kind] = check
        self._metrics.add_kind(check.kind)

    def why_not_ready(self) -> str | None:
        """Why no kind at all can be judged now, or None."""
        refusals = [check.refusal() for check in self._check_of_kind.values()]
        return "; ".join(filter(None, refusals)) if all(refusals) else None

    def health(self) -> dict[str, Any]:
        """What /healthz says: the number of pending items, and each kind's refusal and details."""
        kinds = {kind: {"refusal": check.refusal(), **check.health()} for kind, check in self._check_of_kind.items()}
        return {"pending_items": self._num_pending, "kinds": kinds}

    async def admit(
        self,
        items: Sequence[VerdictItem],
        unreadable: Mapping[int, str] | None = None,
        arrived: float | None = None,
        deadline_seconds: float | None = None,
    ) -> AdmittedBatch:
        """Prepares the items of a batch that arrived then (None: now); where that outlasts the deadline, none is
        judged. Those at the positions `unreadable` have no reward, for the reason given there.

        Raises InvalidInput, Unavailable or Overloaded for the batch as a whole.
        """
        if self._num_pending + len(items) > self._max_pending_items:
            self._metrics.refused_batches.labels(BatchRefusal.OVERLOADED).inc()
            raise Overloaded(
                f"{self._num_pending} items are pending and {len(items)} more would exceed {self._max_pending_items}; "
                "try again later or send smaller batches"
            )
        arrived = time.monotonic() if arrived is None else arrived
        unreadable = {} if unreadable is None else unreadable
        self._add_pending(len(items))
        try:
            async with _deadline(arrived, deadline_seconds):
                groups = await self._prepare(items, unreadable)
            batch = AdmittedBatch(len(items), groups, unreadable, arrived)
        except TimeoutError:
            late = dict.fromkeys(range(len(items)), _late(deadline_seconds))
            batch = AdmittedBatch(len(items), (), {**late, **unreadable}, arrived)
        except BaseException:
            self._add_pending(-len(items))
            raise
        self._batches[id(batch)] = batch
        return batch

    async def _prepare(self, items: Sequence[VerdictItem], unreadable: Mapping[int, str]) -> tuple[KindGroup, ...]:
        groups: dict[str, KindGroup] = {}
        async for position, given in yielding(items):
            if position in unreadable:
                continue
            item = given.with_opened_thought()
            group = groups.get(item.kind)
            if group is None:
                group = groups[item.kind] = KindGroup(self._find_check(item))
            group.positions.append(position)
            if len(item.response) > LONG_RESPONSE:
                group.cases.append(await asyncio.to_thread(group.check.prepare, item))
            else:
                group.cases.append(group.check.prepare(item))
        for group in groups.values():
            await group.check.vet(group.cases)
        return tuple(groups.values())

    async def judge(self, batch: AdmittedBatch, deadline_seconds: float, report: ReportJudgement) -> None:
        """Reports one judgement for every item, by its position, before the deadline ends."""
        for position, reason in batch.unreadable.items():
            report(position, Judgement.failure(reason))
        try:
            async with asyncio.TaskGroup() as tasks:
                for group in batch.groups:
                    tasks.create_task(self._judge_group(group, batch.arrived, deadline_seconds, report))
        finally:
            del self._batches[id(batch)]
            self._add_pending(-batch.num_items)
            self._metrics.batch_seconds.observe(time.monotonic() - batch.arrived)

    def _add_pending(self, num_items: int) -> None:
        self._num_pending += num_items
        self._metrics.pending_items.set(self._num_pending)

    def _queue_age_seconds(self) -> float:
        oldest = next(iter(self._batches.values()), None)
        return 0.0 if oldest is None else time.monotonic() - oldest.arrived

    def _find_check(self, item: VerdictItem) -> Check[Any]:
        check = self._check_of_kind.get(item.kind)
        if check is None:
            known = ", ".join(sorted(self._check_of_kind))
            raise InvalidInput(f"item {item.id!r}: kind {item.kind!r} is none of: {known}")
        refusal = check.refusal()
        if refusal is not None:
            self._metrics.refused_batches.labels(BatchRefusal.UNAVAILABLE).inc()
            raise Unavailable(f"kind {item.kind!r} cannot be judged here: {refusal}")
        return check

    async def _judge_group(
        self, group: KindGroup, arrived: float, deadline_seconds: float, report: ReportJudgement
    ) -> None:
        kind = group.check.kind
        cache = self._cache if group.check.is_repeatable else None
        open_cases = _OpenCases(group, report, cache, self._metrics)
        try:
            async with _deadline(arrived, deadline_seconds):
                await open_cases.look_up()
                await group.check.judge(open_cases.cases, open_cases.report)
        except TimeoutError:
            open_cases.fail(_late(deadline_seconds))
        except Exception as error:
            log.exception("check_failed", kind=kind)
            open_cases.fail(f"the {kind} check failed: {type(error).__name__}")
        open_cases.fail(f"the {kind} check gave no verdict")
        for outcome, count in open_cases.num_of_outcome.items():
            self._metrics.verdicts.labels(kind, outcome).inc(count)
        self._metrics.cache_hits.labels(kind).inc(len(group.cases) - len(open_cases.cases))


def _deadline(arrived: float, seconds: float | None) -> asyncio.Timeout:
    return asyncio.timeout(None if seconds is None else arrived + seconds - time.monotonic())


def _late(deadline_seconds: float | None) -> str:
    return f"not judged within the batch's deadline of {deadline_seconds:g} s; send it again"


class _OpenCases:
    """The cases of a group that the cache does not know. Every case is reported once, whatever the check does."""

    def __init__(
        self, group: KindGroup, report: ReportJudgement, cache: JudgementCache | None, metrics: VerifierMetrics
    ) -> None:
        self._group = group
        self._report = report
        self._cache = cache
        self._observe_seconds = metrics.judge_seconds.labels(group.check.kind).observe
        self.num_of_outcome: Counter[Outcome] = Counter()
        self.cases: Sequence[Case[Any]] = group.cases
        self._open = {index: index for index in range(len(group.cases))}

    async def look_up(self) -> None:
        """Reports what the cache knows, and leaves the others in `cases`."""
        if self._cache is None or not self._cache:
            return
        indices = [index async for index, case in yielding(self._group.cases) if not self._is_cached(index, case)]
        self.cases = [self._group.cases[index] for index in indices]
        self._open = dict(enumerate(indices))

    def report(self, position: int, judgement: Judgement) -> None:
        """Takes the judgement of `cases[position]`; only the first one counts."""
        index = self._open.pop(position, None)
        if index is None:
            return
        self._observe_seconds(judgement.seconds)
        self._close(index, judgement)
        if self._cache is not None:
            self._cache.put(self._group.check.kind, self._group.cases[index], judgement)

    def fail(self, reason: str) -> None:
        """Reports every open case as the verifier's failure."""
        for position in list(self._open):
            self.report(position, Judgement.failure(reason))

    def _is_cached(self, index: int, case: Case[Any]) -> bool:
        """Reports the judgement if the cache knows it."""
        known = None if self._cache is None else self._cache.get(self._group.check.kind, case)
        if known is not None:
            del self._open[index]
            self._close(index, known)
        return known is not None

    def _close(self, index: int, judgement: Judgement) -> None:
        self.num_of_outcome[judgement.outcome] += 1
        self._report(self._group.positions[index], judgement)
