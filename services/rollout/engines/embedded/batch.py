"""The requests in flight: admitted with the cached part of their prefix, decoded together, released as they finish."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice

from services.rollout.engines.embedded.kv import KVPool, RowKV
from services.rollout.engines.embedded.metrics import EmbeddedCounters
from services.rollout.engines.embedded.model import NewWeights, PolicyModel
from services.rollout.engines.embedded.radix import RadixTree
from services.rollout.engines.embedded.row import CompletionRow, Row, ScoreRow
from services.rollout.engines.embedded.token_sampling import sample_tokens, score_tokens
from shared.tree.draw import WeightVersion

WORTH_WAITING_TOKENS = 32
"""A request waits one pass for the same prompt of another if that saves it so many tokens, or all it needs; fewer are
not worth the wait."""
SCORED_LOGITS = 2**25
"""Logits that a scoring pass holds at once: 128 MiB."""


@dataclass(frozen=True, slots=True)
class EmbeddedSettings:
    """Bounds: requests decoded together, requests that may wait, memory of the prefix cache, tokens of a prefill pass.

    `context_length` lowers the model's own. `trace` costs half a second at the first load, of a large model seconds,
    and makes decodes faster. `halve`: matrix products in bfloat16; None: where weights are and the CPU is quicker so.
    """

    max_running_requests: int = 64
    max_waiting: int = 4096
    cache_bytes: int = 256 * 2**20
    prefill_tokens: int = 2048
    context_length: int | None = None
    trace: bool = True
    halve: bool | None = None


class DecodeBatch:
    """All state that a decode changes. `replace_weights` changes the weights between two decodes."""

    def __init__(
        self, model: PolicyModel, version: WeightVersion, settings: EmbeddedSettings, counters: EmbeddedCounters
    ) -> None:
        self.model = model
        self._version = version
        self._settings = settings
        self._counters = counters
        self._kv = RowKV(model.kv_shape, settings.max_running_requests)
        num_slots = settings.cache_bytes // model.kv_shape.token_bytes
        self._tree = RadixTree(num_slots)
        self._pool = KVPool(model.kv_shape, num_slots)
        self._rows: list[Row] = []

    @property
    def num_rows(self) -> int:
        return len(self._rows)

    def decode(self, waiting: deque[Row]) -> list[Row]:
        """Admits rows from `waiting` while they fit, scores those to score, feeds every other row a token, and releases
        the rows that finished."""
        self._release([index for index, row in enumerate(self._rows) if row.is_cancelled])
        while admitted := self._admit(waiting):
            # Short prompts are fed one token per decode: a pass of their own would cost more than their tokens.
            # A score that needs nothing before it changes nothing for the others.
            is_short = sum(row.num_missing for row in admitted) <= sum(map(_is_fed, self._rows)) // 2
            if not is_short or any(row.num_missing for row in admitted if not _is_fed(row)):
                self._prefill(len(self._rows) - len(admitted))
        return [*self._score(), *self._feed()]

    def replace_weights(self, new: NewWeights, version: WeightVersion) -> None:
        """Serves `new` from now on, and clears the cache; `recompute` must come before the next decode."""
        self._tree.clear()
        self.model, self._version = self.model.adopt(new), version

    def recompute(self) -> None:
        """Computes the rows' prefixes with new weights."""
        version = self._version
        for row in self._rows:
            self._counters.recomputed_tokens += row.num_computed
            row.num_computed, row.pinned = 0, None
            row.version_starts.append((version, len(row.logprobs)))
        self._compute(0)
        for index in range(len(self._rows)):
            self._cache(index)

    def clear(self) -> None:
        """Drops every row and the cache, after a decode that failed half-way."""
        self._rows = []
        self._tree.clear()

    def max_next_tokens(self, waiting: deque[Row]) -> int:
        """A bound on the tokens that the next decode computes."""
        next_rows = islice(waiting, self._settings.max_running_requests - len(self._rows))
        return len(self._rows) + sum(row.num_first_tokens for row in next_rows)

    def _admit(self, waiting: deque[Row]) -> list[Row]:
        """Moves requests from `waiting` into rows, in order. A request whose prompt another row still computes waits
        until that prompt is cached."""
        admitted: list[Row] = []
        deferred: list[Row] = []
        computing = [row for row in self._rows if row.num_missing]
        slots_of_row: dict[Row, list[int]] = {}
        max_rows = self._settings.max_running_requests  # bounds `deferred` too: no decode walks a long queue
        while waiting and len(self._rows) + len(admitted) < max_rows and len(deferred) < max_rows:
            row = waiting.popleft()
            if row.is_cancelled:
                continue
            prefix = row.prompt[:-1]
            node, slots = self._tree.match(prefix)
            shareable = prefix[: len(slots) + WORTH_WAITING_TOKENS]
            if len(slots) < len(prefix):
                if any(shareable == other.prompt[: len(shareable)] for other in computing):
                    deferred.append(row)
                    continue
                computing.append(row)
            self._tree.pin(node)
            row.pinned, row.cached_tokens, row.num_computed = node, len(slots), len(slots)
            slots_of_row[row] = slots
            admitted.append(row)
        waiting.extendleft(reversed(deferred))
        admitted.sort(key=lambda row: row.num_missing, reverse=True)  # rows of similar length share a prefill pass
        for row in admitted:
            self._add(row, slots_of_row[row])
        return admitted

    def _add(self, row: Row, slots: list[int]) -> None:
        """Makes it the last row and copies its cached prefix."""
        self._kv.reserve(row.num_first_tokens)
        if slots:
            self._pool.restore(slots, self._kv, len(self._rows))
        row.version_starts.append((self._version, 0))
        self._rows.append(row)
        self._counters.cached_tokens += len(slots)

    def _prefill(self, first: int) -> None:
        """Computes and caches the missing tokens of the rows from `first` on."""
        missing = [index for index in range(first, len(self._rows)) if self._rows[index].num_missing]
        self._counters.prefilled_tokens += sum(self._rows[index].num_missing for index in missing)
        self._compute(first)
        for index in missing:
            self._cache(index)

    def _compute(self, first: int) -> None:
        """Computes the missing tokens of the rows from `first` on, in passes of at most `prefill_tokens`."""
        limit = self._settings.prefill_tokens
        for group in _group_similar([row.num_missing for row in self._rows[first:]], limit):
            rows = self._rows[first + group.start : first + group.stop]
            while rows[0].num_missing:  # several passes for a long row, which is alone in its group
                starts = [row.num_computed for row in rows]
                for row in rows:
                    row.num_computed += min(row.num_missing, limit)
                token_ids = [row.token_ids[start : row.num_computed] for row, start in zip(rows, starts, strict=True)]
                self.model.prefill(self._kv, first + group.start, starts, token_ids)

    def _score(self) -> list[Row]:
        """Scores the continuations that are given, and releases their rows."""
        scored: list[int] = []
        for _, neighbours in groupby(enumerate(self._rows), key=lambda pair: type(pair[1])):
            pairs = [(index, row) for index, row in neighbours if isinstance(row, ScoreRow)]
            if pairs:
                self._score_neighbours(pairs[0][0], [row for _, row in pairs])
                scored += [index for index, _ in pairs]
        rows = [self._rows[index] for index in scored]
        self._release(scored)
        return rows

    def _score_neighbours(self, first: int, rows: list[ScoreRow]) -> None:
        """Feeds the rows from `first` on the tokens before those to score, in passes of at most `prefill_tokens`."""
        limit = max(1, min(self._settings.prefill_tokens, SCORED_LOGITS // self.model.limits.vocab_size))
        for group in _group_similar([len(row.continuation) for row in rows], limit):
            while not (fed := rows[group])[0].is_finished:  # several passes for a long row, which is alone in its group
                starts, pieces = [row.position for row in fed], [row.next_tokens(limit) for row in fed]
                logits = self.model.score(self._kv, first + group.start, starts, [before for before, _ in pieces])
                for row, (_, token_ids), logits_NV in zip(fed, pieces, logits, strict=True):
                    row.logprobs += score_tokens(logits_NV, token_ids, row.temperature)
                    self._counters.scored_tokens += len(token_ids)

    def _feed(self) -> list[Row]:
        """Feeds every row its next token, and samples one for the rows that have been fed all of theirs."""
        rows = [row for row in self._rows if isinstance(row, CompletionRow)]
        if not rows:
            return []
        positions = [row.num_computed for row in rows]
        self._kv.reserve(max(positions) + 1)
        logits_BV = self.model.decode(self._kv, [row.token_ids[row.num_computed] for row in rows], positions)
        uniforms = [0.0 if row.num_missing else row.uniform() for row in rows]
        entropy_rows = [index for index, row in enumerate(rows) if row.request.with_entropies]
        sampled = sample_tokens(logits_BV, [row.request.sampling for row in rows], uniforms, entropy_rows)
        finished: list[int] = []
        for index, (row, token_id, logprob, sampling_logprob, entropy) in enumerate(
            zip(rows, sampled.token_ids, sampled.logprobs, sampled.sampling_logprobs, sampled.entropies, strict=True)
        ):
            row.num_computed += 1
            if row.num_computed < len(row.token_ids):
                self._count_prompt_token(index)
                continue
            row.append(token_id, logprob, sampling_logprob, entropy)
            if row.is_finished:
                finished.append(index)
        self._counters.generated_tokens += len(rows)
        self._release(finished)
        return [rows[index] for index in finished]

    def _count_prompt_token(self, index: int) -> None:
        """Counts the token of a prompt that was fed by a decode, and caches the prompt once it is complete."""
        self._counters.generated_tokens -= 1
        self._counters.prefilled_tokens += 1
        if not self._rows[index].num_missing:
            self._cache(index)

    def _release(self, indices: list[int]) -> None:
        """Removes rows and caches what they computed; the last row moves into each gap."""
        for index in reversed(indices):
            row = self._rows[index]
            self._cache(index)
            if row.pinned is not None:
                self._tree.unpin(row.pinned)
            last = self._rows.pop()
            if last is not row:
                self._kv.move(len(self._rows), index, last.num_computed)
                self._rows[index] = last

    def _cache(self, index: int) -> None:
        """Caches what a row has computed, and pins it while the row runs."""
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


def _is_fed(row: Row) -> bool:
    return not isinstance(row, ScoreRow)


def _group_similar(widths: Sequence[int], limit: int) -> Iterator[slice]:
    """Slices of neighbours with similar widths; padded to its widest, a slice has at most `limit` tokens."""
    begin = 0
    for end in range(1, len(widths) + 1):
        extended = widths[begin : end + 1]
        if end == len(widths) or max(extended) > 2 * min(extended) or max(extended) * len(extended) > limit:
            yield slice(begin, end)
            begin = end
