"""The rows in flight: admitted with what the cache holds of their prefix, decoded together, swapped out as they end."""

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from services.rollout.engines.embedded.attention import Span
from services.rollout.engines.embedded.counters import EngineCounters
from services.rollout.engines.embedded.kv import KVPool, RowKV
from services.rollout.engines.embedded.model import Policy
from services.rollout.engines.embedded.radix import RadixNode, RadixTree
from services.rollout.engines.embedded.sampler import draw_tokens
from services.rollout.engines.embedded.settings import EmbeddedSettings
from services.rollout.engines.engine import Completion, Request
from shared.tree.draw import Finish, VersionSpan, WeightVersion


@dataclass(slots=True, eq=False)
class Row:
    """One request in flight; `token_ids` are its prefix and what was sampled so far."""

    request: Request
    uniform: Callable[[], float]
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    sampling_logprobs: list[float] = field(default_factory=list)
    version_starts: list[tuple[WeightVersion, int]] = field(default_factory=list)
    cached_tokens: int = 0
    pinned: RadixNode | None = None
    is_cancelled: bool = False

    @classmethod
    def of(cls, request: Request) -> "Row":
        """Its randomness is its own, so that it does not depend on the rows around it."""
        return cls(request, random.Random(request.seed).random, list(request.token_ids))

    @property
    def num_sampled(self) -> int:
        return len(self.logprobs)

    def take(self, token_id: int, logprob: float, sampling_logprob: float) -> None:
        """Appends a sampled token."""
        self.token_ids.append(token_id)
        self.logprobs.append(logprob)
        self.sampling_logprobs.append(sampling_logprob)

    def finish(self) -> Finish | None:
        """How it ended, None while it goes on."""
        if self.logprobs and self.token_ids[-1] in self.request.stop_ids:
            return Finish.STOP
        return Finish.LENGTH if self.num_sampled >= self.request.max_tokens else None

    def completion(self, finish: Finish) -> Completion:
        return Completion(
            token_ids=tuple(self.token_ids[len(self.request.token_ids) :]),
            logprobs=tuple(self.logprobs),
            sampling_logprobs=tuple(self.sampling_logprobs) if self.request.sampling.cuts_support else None,
            spans=self._spans(),
            finish=finish,
            cached_tokens=self.cached_tokens,
        )

    def _spans(self) -> tuple[VersionSpan, ...]:
        ends = [start for _, start in self.version_starts[1:]] + [self.num_sampled]
        return tuple(
            VersionSpan(version, start, end)
            for (version, start), end in zip(self.version_starts, ends, strict=True)
            if start < end
        )


class Batch:
    """All state that a step changes. One policy serves; `swap` replaces it between two steps."""

    def __init__(
        self, policy: Policy, version: WeightVersion, settings: EmbeddedSettings, counters: EngineCounters
    ) -> None:
        self.policy = policy
        self._version = version
        self._settings = settings
        self._counters = counters
        self._kv = RowKV(policy.kv_shape, settings.max_rows)
        num_slots = settings.cache_bytes // policy.kv_shape.token_bytes
        self._tree = RadixTree(num_slots)
        self._pool = KVPool(policy.kv_shape, num_slots)
        self._rows: list[Row] = []

    @property
    def num_rows(self) -> int:
        return len(self._rows)

    def step(self, waiting: deque[Row]) -> list[Row]:
        """Admits from `waiting` what fits, samples one token for every row, and returns the rows that ended."""
        self._release([index for index, row in enumerate(self._rows) if row.is_cancelled])
        while joined := self._admit(waiting):
            self._prefill(joined)
        if not self._rows:
            return []
        self._decode()
        ended = [index for index, row in enumerate(self._rows) if row.finish() is not None]
        return self._release(ended)

    def swap(self, policy: Policy, version: WeightVersion) -> None:
        """Serves `policy` from now on: forgets the cache and computes the rows' prefixes anew."""
        self.policy, self._version = self.policy.succeed(policy), version
        self._tree.clear()
        for row in self._rows:
            row.pinned = None
            row.version_starts.append((version, row.num_sampled))
        self._compute([Span(index, 0, len(row.token_ids) - 1) for index, row in enumerate(self._rows)])
        self._counters.recomputed_tokens += sum(len(row.token_ids) - 1 for row in self._rows)

    def drop_all(self) -> list[Row]:
        """Lets go of every row and of the cache, after a step that failed half-way."""
        rows, self._rows = self._rows, []
        self._tree.clear()
        return rows

    def _admit(self, waiting: deque[Row]) -> list[Row]:
        """Rows for who waits, in order; who shares more with one about to be computed than with the cache waits."""
        joined: list[Row] = []
        passed: list[Row] = []
        computing: list[Row] = []
        while waiting and len(self._rows) < self._settings.max_rows:
            row = waiting.popleft()
            if row.is_cancelled:
                continue
            prefix = row.request.token_ids[:-1]
            node, slots = self._tree.match(prefix)
            known = len(slots)
            if known < len(prefix) and any(
                prefix[: known + 1] == other.request.token_ids[: known + 1] for other in computing
            ):
                passed.append(row)
                continue
            self._tree.pin(node)
            row.pinned, row.cached_tokens = node, known
            row.version_starts.append((self._version, 0))
            self._kv.reserve(len(row.token_ids))
            if slots:
                self._pool.restore(slots, self._kv, len(self._rows))
            self._rows.append(row)
            joined.append(row)
            if known < len(prefix):
                computing.append(row)
        waiting.extendleft(reversed(passed))
        self._counters.cached_tokens += sum(row.cached_tokens for row in joined)
        return joined

    def _prefill(self, joined: list[Row]) -> None:
        """Computes what the cache did not hold, all rows' in one pass, and caches it."""
        first = len(self._rows) - len(joined)
        spans = [
            Span(first + offset, row.cached_tokens, len(row.token_ids) - 1)
            for offset, row in enumerate(joined)
            if row.cached_tokens < len(row.token_ids) - 1
        ]
        self._compute(spans)
        self._counters.prefilled_tokens += sum(span.end - span.start for span in spans)
        for span in spans:
            self._remember(span.row)

    def _compute(self, spans: list[Span]) -> None:
        """Fills the spans in passes of at most `prefill_tokens`."""
        batch: list[Span] = []
        room = self._settings.prefill_tokens
        for span in spans:
            start = span.start
            while start < span.end:
                end = min(span.end, start + room)
                batch.append(Span(span.row, start, end))
                room, start = room - (end - start), end
                if room == 0:
                    self._compute_pass(batch)
                    batch, room = [], self._settings.prefill_tokens
        if batch:
            self._compute_pass(batch)

    def _compute_pass(self, spans: list[Span]) -> None:
        token_ids = [token for span in spans for token in self._rows[span.row].token_ids[span.start : span.end]]
        self.policy.prefill(self._kv, spans, token_ids)

    def _decode(self) -> None:
        rows = self._rows
        positions = [len(row.token_ids) - 1 for row in rows]
        self._kv.reserve(max(positions) + 1)
        logits_BV = self.policy.decode(self._kv, [row.token_ids[-1] for row in rows], positions)
        drawn = draw_tokens(logits_BV, [row.request.sampling for row in rows], [row.uniform() for row in rows])
        for row, token_id, logprob, sampling_logprob in zip(
            rows, drawn.token_ids, drawn.logprobs, drawn.sampling_logprobs, strict=True
        ):
            row.take(token_id, logprob, sampling_logprob)
        self._counters.generated_tokens += len(rows)

    def _release(self, indices: list[int]) -> list[Row]:
        """Takes rows out, caching what they computed; the last row moves into each hole."""
        released = []
        for index in reversed(indices):
            row = self._rows[index]
            self._remember(index)
            if row.pinned is not None:
                self._tree.unpin(row.pinned)
            released.append(row)
            last = self._rows.pop()
            if last is not row:
                self._kv.move(len(self._rows), index, len(last.token_ids) - 1)
                self._rows[index] = last
        return released

    def _remember(self, index: int) -> None:
        """Puts a row's computed tokens (all but its newest) into the cache, and pins them there while it runs."""
        row = self._rows[index]
        before = self._tree.num_evicted
        node, start, slots = self._tree.insert(tuple(row.token_ids[:-1]))
        self._counters.evicted_tokens += self._tree.num_evicted - before
        if slots:
            self._pool.store(slots, self._kv, index, start)
        self._tree.pin(node)
        if row.pinned is not None:
            self._tree.unpin(row.pinned)
        row.pinned = node
