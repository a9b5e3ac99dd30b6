"""The rows in flight: admitted with what the cache holds of their prefix, decoded together, swapped out as they end."""

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice

from services.rollout.engines.embedded.kv import KVPool, RowKV
from services.rollout.engines.embedded.metrics import EmbeddedCounters
from services.rollout.engines.embedded.model import PolicyModel
from services.rollout.engines.embedded.radix import RadixTree
from services.rollout.engines.embedded.row import Row
from services.rollout.engines.embedded.settings import EmbeddedSettings
from services.rollout.engines.embedded.token_sampling import sample_tokens
from services.rollout.engines.engine import Completion
from shared.tree.draw import WeightVersion

WORTH_WAITING_TOKENS = 32
"""A request waits a pass for another's prompt if that spares it as many tokens, or all: passes are not free either."""


class DecodeBatch:
    """All state that a step changes. One policy serves; `swap` replaces it between two steps."""

    def __init__(
        self, policy: PolicyModel, version: WeightVersion, settings: EmbeddedSettings, counters: EmbeddedCounters
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
        """Admits from `waiting` what fits, feeds every row a token, and lets go of the rows that ended."""
        self._release([index for index, row in enumerate(self._rows) if row.is_cancelled])
        while joined := self._admit(waiting):
            # A short prompt rides along, a token a step, where a pass of its own would cost more than its tokens.
            if sum(row.num_missing for row in joined) > len(self._rows) // 2:
                self._prefill(len(self._rows) - len(joined))
        return self._decode() if self._rows else []

    def swap(self, policy: PolicyModel, version: WeightVersion) -> None:
        """Serves `policy` from now on: forgets the cache and computes the rows' prefixes anew."""
        self.policy, self._version = self.policy.succeed(policy), version
        self._tree.clear()
        for row in self._rows:
            self._counters.recomputed_tokens += row.num_computed
            row.num_computed, row.pinned = 0, None
            row.version_starts.append((version, row.num_sampled))
        self._compute(0)
        for index in range(len(self._rows)):
            self._remember(index)

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
        computing = [row for row in self._rows if row.num_missing]
        slots_of_row: dict[Row, list[int]] = {}
        max_rows = self._settings.max_rows  # bounds the passed over, too: a long queue is not walked at every step
        while waiting and len(self._rows) + len(joined) < max_rows and len(passed) < max_rows:
            row = waiting.popleft()
            if row.is_cancelled:
                continue
            prefix = row.request.token_ids[:-1]
            node, slots = self._tree.match(prefix)
            worth = prefix[: len(slots) + WORTH_WAITING_TOKENS]
            if len(slots) < len(prefix):
                if any(worth == other.request.token_ids[: len(worth)] for other in computing):
                    passed.append(row)
                    continue
                computing.append(row)
            self._tree.pin(node)
            row.pinned, row.cached_tokens, row.num_computed = node, len(slots), len(slots)
            slots_of_row[row] = slots
            joined.append(row)
        waiting.extendleft(reversed(passed))
        joined.sort(key=lambda row: row.num_missing, reverse=True)  # side by side who has about as much to compute
        for row in joined:
            self._join(row, slots_of_row[row])
        return joined

    def _join(self, row: Row, slots: list[int]) -> None:
        """Makes it the last row, with its cached prefix in place."""
        self._kv.reserve(len(row.token_ids))
        if slots:
            self._pool.restore(slots, self._kv, len(self._rows))
        row.version_starts.append((self._version, 0))
        self._rows.append(row)
        self._counters.cached_tokens += len(slots)

    def _prefill(self, first: int) -> None:
        """Computes and caches what the rows from `first` on miss."""
        missing = [index for index in range(first, len(self._rows)) if self._rows[index].num_missing]
        self._counters.prefilled_tokens += sum(self._rows[index].num_missing for index in missing)
        self._compute(first)
        for index in missing:
            self._remember(index)

    def _compute(self, first: int) -> None:
        """Computes what the rows from `first` on miss, in passes of at most `prefill_tokens`."""
        limit = self._settings.prefill_tokens
        for group in _alike([row.num_missing for row in self._rows[first:]], limit):
            rows = self._rows[first + group.start : first + group.stop]
            while rows[0].num_missing:  # more than once for a long row, which goes alone
                starts = [row.num_computed for row in rows]
                for row in rows:
                    row.num_computed += min(row.num_missing, limit)
                token_ids = [row.token_ids[start : row.num_computed] for row, start in zip(rows, starts, strict=True)]
                self.policy.prefill(self._kv, first + group.start, starts, token_ids)

    def _decode(self) -> list[tuple[Row, Completion]]:
        """Feeds every row its next token, and samples another for those of which all are fed."""
        rows = self._rows
        positions = [row.num_computed for row in rows]
        self._kv.reserve(max(positions) + 1)
        logits_BV = self.policy.decode(self._kv, [row.token_ids[row.num_computed] for row in rows], positions)
        uniforms = [0.0 if row.num_missing else row.uniform() for row in rows]
        drawn = sample_tokens(logits_BV, [row.request.sampling for row in rows], uniforms)
        ended, completions = [], []
        for index, (row, token_id, logprob, sampling_logprob) in enumerate(
            zip(rows, drawn.token_ids, drawn.logprobs, drawn.sampling_logprobs, strict=True)
        ):
            row.num_computed += 1
            if row.num_computed < len(row.token_ids):
                self._ride(index)
            elif (finish := row.take(token_id, logprob, sampling_logprob)) is not None:
                ended.append(index)
                completions.append((row, row.completion(finish)))
        self._counters.generated_tokens += len(rows)
        self._release(ended)
        return completions

    def _ride(self, index: int) -> None:
        """Counts a prompt's token that came along with a decode pass, and caches the prompt when it is complete."""
        self._counters.generated_tokens -= 1
        self._counters.prefilled_tokens += 1
        if not self._rows[index].num_missing:
            self._remember(index)

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
        node, start, slots = self._tree.insert(tuple(row.token_ids[: row.num_computed]))
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
