"""A cache of judgements by (kind, answer, key)."""

from collections import OrderedDict
from typing import Any

from services.verifier.checks.check import Case, Judgement
from shared.protocol.verdict import Outcome

# These depend on nothing but the answer and its key; a time-out may be the machine's.
_CACHEABLE = frozenset({Outcome.RIGHT, Outcome.WRONG, Outcome.NO_ANSWER})
_MAX_RESPONSE_CHARACTERS = 4_096


class JudgementCache:
    """Keeps up to `max_entries` judgements and drops the least recently used; 0 keeps none."""

    def __init__(self, max_entries: int) -> None:
        self._max_entries = max_entries
        self._judgements: OrderedDict[tuple[str, Case[Any]], Judgement] = OrderedDict()

    def get(self, kind: str, case: Case[Any]) -> Judgement | None:
        if not self._judgements:
            return None
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
