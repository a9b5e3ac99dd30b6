"""The rows in flight: admitted with what the cache holds of their prefix, decoded together, swapped out as they end."""

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice

from services.rollout.engines.embedded.counters import EngineCounters
from services.rollout.engines.embedded.kv import KVPool, RowKV
from services.rollout.engines.embedded.model import Policy
from services.rollout.engines.embedded.radix import RadixTree
from services.rollout.engines.embedded.row import Row
from services.rollout.engines.embedded.sampler import draw_tokens
from services.rollout.engines.embedded.settings import EmbeddedSettings
from services.rollout.engines.engine import Completion
from shared.tree.draw import WeightVersion

WORTH_WAITING_TOKENS = 32
"""A request waits a pass for another's prompt if that spares it as many tokens, or all: passes are not free either."""


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

    def step(self, waiting: deque[Row]) -> list[tuple[Row, Completion]]:
        """Admits from `waiting` what fits, samples one token for every row, and lets go of the rows that ended."""
        self._release([index for index, row in enumerate(self._rows) if row.is_cancelled])
        while joined := self._admit(waiting):
            self._prefill(joined)
        return self._decode() if self._rows else []

    def swap(self, policy: Policy, version: WeightVersion) -> None:
        """Serves `policy` from now on: forgets the cache and computes the rows' prefixes anew."""
        self.policy, self._version = self.policy.succeed(policy), version
        self._tree.clear()
        for row in self._rows:
            row.pinned = None
            row.version_starts.append((version, row.num_sampled))
        self._compute(0, [0] * len(self._rows))
        for index in range(len(self._rows)):
            self._remember(index)
        self._counters.recomputed_tokens += sum(row.num_computed for row in self._rows)

    def drop_all(self) -> None:
        """Lets go of every row and of the cache, after a step that failed half-way."""
        self._rows = []
        self._tree.clear()

    def tokens_ahead(self, waiting: deque[Row]) -> int:
        """At most so many tokens go through the model in the next step."""
        joining = islice(waiting, self._settings.max_rows - len(self._rows))
        return len(self._rows) + sum(len(row.token_ids) for row in joining)

    def _admit(self, waiting: deque[Row]) -> list[Row]:
        """Gives rows to who waits, in order, and passes over who should wait for a prompt that another one computes."""
        joined: list[Row] = []
        passed: list[Row] = []
        restorable: dict[Row, list[int]] = {}
        while waiting and len(self._rows) + len(joined) < self._settings.max_rows:
            row = waiting.popleft()
            if row.is_cancelled:
                continue
            prefix = row.request.token_ids[:-1]
            node, slots = self._tree.match(prefix)
            worth = prefix[: len(slots) + WORTH_WAITING_TOKENS]
            if len(slots) < len(prefix) and any(worth == other.request.token_ids[: len(worth)] for other in joined):
                passed.append(row)
                continue
            self._tree.pin(node)
            row.pinned, row.cached_tokens, restorable[row] = node, len(slots), slots
            joined.append(row)
        waiting.extendleft(reversed(passed))
        # Side by side those that have about as much to compute.
        joined.sort(key=lambda row: row.num_computed - row.cached_tokens, reverse=True)
        for row in joined:
            self._join(row, restorable[row])
        return joined

    def _join(self, row: Row, slots: list[int]) -> None:
        """Makes it the last row, with its cached prefix in place."""
        self._kv.reserve(len(row.token_ids))
        if slots:
            self._pool.restore(slots, self._kv, len(self._rows))
        row.version_starts.append((self._version, 0))
        self._rows.append(row)
        self._counters.cached_tokens += len(slots)

    def _prefill(self, joined: list[Row]) -> None:
        """Computes what the cache did not hold, and caches it."""
        first = len(self._rows) - len(joined)
        self._compute(first, [row.cached_tokens for row in joined])
        for index, row in enumerate(joined, first):
            if row.cached_tokens < row.num_computed:
                self._counters.prefilled_tokens += row.num_computed - row.cached_tokens
                self._remember(index)

    def _compute(self, first: int, starts: list[int]) -> None:
        """Computes the rows from `first` on, each from its start, in passes of at most `prefill_tokens`."""
        limit = self._settings.prefill_tokens
        widths = [row.num_computed - start for row, start in zip(self._rows[first:], starts, strict=True)]
        for group in _alike(widths, limit):
            rows = self._rows[first + group.start : first + group.stop]
            for offset in range(0, max(widths[group]), limit):  # more than once for a long row, which goes alone
                at = [start + offset for start in starts[group]]
                token_ids = [
                    row.token_ids[a : min(a + limit, row.num_computed)] for a, row in zip(at, rows, strict=True)
                ]
                self.policy.prefill(self._kv, first + group.start, at, token_ids)

    def _decode(self) -> list[tuple[Row, Completion]]:
        rows = self._rows
        positions = [row.num_computed for row in rows]
        self._kv.reserve(max(positions) + 1)
        logits_BV = self.policy.decode(self._kv, [row.token_ids[-1] for row in rows], positions)
        drawn = draw_tokens(logits_BV, [row.request.sampling for row in rows], [row.uniform() for row in rows])
        self._counters.generated_tokens += len(rows)
        ended, completions = [], []
        for index, (row, token_id, logprob, sampling_logprob) in enumerate(
            zip(rows, drawn.token_ids, drawn.logprobs, drawn.sampling_logprobs, strict=True)
        ):
            if (finish := row.take(token_id, logprob, sampling_logprob)) is not None:
                ended.append(index)
                completions.append((row, row.completion(finish)))
        self._release(ended)
        return completions

    def _release(self, indices: list[int]) -> None:
        """Takes rows out, caching what they computed; the last row moves into each hole."""
        for index in reversed(indices):
            row = self._rows[index]
            self._remember(index)
            if row.pinned is not None:
                self._tree.unpin(row.pinned)
            last = self._rows.pop()
            if last is not row:
                self._kv.move(len(self._rows), index, last.num_computed)
                self._rows[index] = last

    def _remember(self, index: int) -> None:
        """Puts what a row has computed into the cache, and pins it there while the row runs."""
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


def _alike(widths: Sequence[int], limit: int) -> Iterator[slice]:
    """Runs of neighbours that have about as much to compute: padded to the widest, a run has at most `limit` tokens."""
    begin = 0
    for end in range(1, len(widths) + 1):
        longer = widths[begin : end + 1]
        if end == len(widths) or max(longer) > 2 * min(longer) or max(longer) * len(longer) > limit:
            yield slice(begin, end)
            begin = end
