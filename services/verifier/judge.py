"""The verifier's heart: takes a batch in, has every item judged, and answers for what was not."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.verifier.checks.check import Case, Check, Judgement, ReportJudgement
from services.verifier.judgement_cache import JudgementCache
from services.verifier.metrics import BatchRefusal, VerifierMetrics
from shared.errors import InvalidInput, Overloaded, Unavailable
from shared.protocol.verdict import Outcome, VerdictItem
from shared.runtime.logs import event_logger

log = event_logger(__name__)


@dataclass(frozen=True, slots=True)
class KindGroup:
    """The items of one kind in a batch, with their positions in it."""

    check: Check[Any]
    positions: list[int] = field(default_factory=list)
    cases: list[Case[Any]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class AdmittedBatch:
    """Items that were accepted: known kinds, readable keys, room in the queue."""

    size: int
    shares: tuple[KindGroup, ...]
    arrived: float


class Judge:
    """Judges batches with the check of each item's kind."""

    def __init__(self, metrics: VerifierMetrics, max_pending_items: int, cache: JudgementCache) -> None:
        self._check_of_kind: dict[str, Check[Any]] = {}
        self._metrics = metrics
        self._max_pending_items = max_pending_items
        self._num_pending = 0
        self._batches: dict[int, AdmittedBatch] = {}  # in the order of their arrival
        self._cache = cache
        metrics.queue_age_seconds.set_function(self._queue_age_seconds)

    def add(self, check: Check[Any]) -> None:
        """Takes up a kind, its check started."""
        self._check_of_kind[check.kind] = check
        self._metrics.add_kind(check.kind)

    def why_not_ready(self) -> str | None:
        """Why no kind can be judged now, or None."""
        refusals = [check.refusal() for check in self._check_of_kind.values()]
        return "; ".join(filter(None, refusals)) if all(refusals) else None

    def health(self) -> dict[str, Any]:
        """What /healthz tells: the queue, and each kind with what it refuses and runs on."""
        kinds = {kind: {"refusal": check.refusal(), **check.health()} for kind, check in self._check_of_kind.items()}
        return {"pending_items": self._num_pending, "kinds": kinds}

    def admit(self, items: Sequence[VerdictItem]) -> AdmittedBatch:
        """Takes the items in. Raises InvalidInput, Unavailable or Overloaded for the batch as a whole."""
        if self._num_pending + len(items) > self._max_pending_items:
            self._metrics.refused_batches.labels(BatchRefusal.OVERLOADED).inc()
            raise Overloaded(
                f"{self._num_pending} items are pending and {len(items)} more would exceed {self._max_pending_items}; "
                "try again later or send smaller batches"
            )
        shares: dict[str, KindGroup] = {}
        for position, item in enumerate(items):
            share = shares.get(item.kind)
            if share is None:
                share = shares[item.kind] = KindGroup(self._usable_check(item))
            share.positions.append(position)
            share.cases.append(share.check.prepare(item))
        batch = AdmittedBatch(len(items), tuple(shares.values()), time.monotonic())
        self._batches[id(batch)] = batch
        self._pend(len(items))
        return batch

    async def judge(self, batch: AdmittedBatch, deadline_seconds: float, deliver: ReportJudgement) -> None:
        """Delivers a judgement for every item of an admitted batch, each once, all by its deadline."""
        try:
            async with asyncio.TaskGroup() as group:
                for share in batch.shares:
                    group.create_task(self._judge_share(share, batch.arrived, deadline_seconds, deliver))
        finally:
            del self._batches[id(batch)]
            self._pend(-batch.size)
            self._metrics.batch_seconds.observe(time.monotonic() - batch.arrived)

    def _pend(self, num_items: int) -> None:
        self._num_pending += num_items
        self._metrics.pending_items.set(self._num_pending)

    def _queue_age_seconds(self) -> float:
        oldest = next(iter(self._batches.values()), None)
        return 0.0 if oldest is None else time.monotonic() - oldest.arrived

    def _usable_check(self, item: VerdictItem) -> Check[Any]:
        check = self._check_of_kind.get(item.kind)
        if check is None:
            known = ", ".join(sorted(self._check_of_kind))
            raise InvalidInput(f"item {item.id!r}: kind {item.kind!r} is none of: {known}")
        refusal = check.refusal()
        if refusal is not None:
            self._metrics.refused_batches.labels(BatchRefusal.UNAVAILABLE).inc()
            raise Unavailable(f"kind {item.kind!r} cannot be judged here: {refusal}")
        return check

    async def _judge_share(
        self, share: KindGroup, arrived: float, deadline_seconds: float, deliver: ReportJudgement
    ) -> None:
        kind = share.check.kind
        ledger = _OpenCases(share, deliver, self._cache, self._metrics.judge_seconds.labels(kind).observe)
        try:
            async with asyncio.timeout(arrived + deadline_seconds - time.monotonic()):
                await share.check.judge(ledger.open_cases(), ledger.report)
        except TimeoutError:
            ledger.fail_open(f"not judged within the batch's deadline of {deadline_seconds:g} s; send it again")
        except Exception as error:
            log.exception("check_failed", kind=kind)
            ledger.fail_open(f"the {kind} check failed: {type(error).__name__}")
        ledger.fail_open(f"the {kind} check gave no verdict")
        for outcome, count in ledger.num_of_outcome.items():
            self._metrics.verdicts.labels(kind, outcome).inc(count)
        self._metrics.cache_hits.labels(kind).inc(ledger.num_known)


class _OpenCases:
    """What of a share is still open; each of its items is delivered once, whatever the check does."""

    def __init__(
        self,
        share: KindGroup,
        deliver: ReportJudgement,
        cache: JudgementCache,
        observe_seconds: Callable[[float], None],
    ) -> None:
        self._share = share
        self._observe_seconds = observe_seconds
        self._deliver = deliver
        self._cache = cache if share.check.is_repeatable else None
        self._open: list[int] = []  # indices into the share, by the check's position
        self._is_open: list[bool] = []
        self.num_of_outcome: Counter[Outcome] = Counter()
        self.num_known = 0

    def open_cases(self) -> list[Case[Any]]:
        """Delivers what the cache knows; the cases left, in the positions that `report` takes."""
        cases = self._share.cases
        if self._cache is None:
            self._open = list(range(len(cases)))
        else:
            for index, case in enumerate(cases):
                known = self._cache.get(self._share.check.kind, case)
                if known is None:
                    self._open.append(index)
                else:
                    self.num_known += 1
                    self._settle(index, known)
        self._is_open = [True] * len(self._open)
        return [cases[index] for index in self._open]

    def report(self, position: int, judgement: Judgement) -> None:
        if not self._is_open[position]:
            return
        self._is_open[position] = False
        index = self._open[position]
        self._observe_seconds(judgement.seconds)
        self._settle(index, judgement)
        if self._cache is not None:
            self._cache.put(self._share.check.kind, self._share.cases[index], judgement)

    def fail_open(self, reason: str) -> None:
        for position, is_open in enumerate(self._is_open):
            if is_open:
                self.report(position, Judgement.failure(reason))

    def _settle(self, index: int, judgement: Judgement) -> None:
        self.num_of_outcome[judgement.outcome] += 1
        self._deliver(self._share.positions[index], judgement)
