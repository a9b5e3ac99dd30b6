"""The judgements of the last distinct (answer, key) pairs."""

from collections import OrderedDict
from typing import Any

from services.verifier.checks.check import Case, Judgement
from shared.protocol.verdict import Outcome

# Outcomes that depend on nothing but the answer and its key; a time-out may be the machine's.
_LASTING = frozenset({Outcome.RIGHT, Outcome.WRONG, Outcome.NO_ANSWER})
_LONGEST_RESPONSE = 4_096


class JudgementCache:
    """Keeps up to `entries` judgements, least recently used first to go; 0 keeps none."""

    def __init__(self, entries: int) -> None:
        self._entries = entries
        self._known: OrderedDict[tuple[str, Case[Any]], Judgement] = OrderedDict()

    def get(self, kind: str, case: Case[Any]) -> Judgement | None:
        if not self._known:
            return None
        found = self._known.get((kind, case))
        if found is not None:
            self._known.move_to_end((kind, case))
        return found

    def put(self, kind: str, case: Case[Any], judgement: Judgement) -> None:
        if self._entries and judgement.outcome in _LASTING and len(case.response) <= _LONGEST_RESPONSE:
            self._known[kind, case] = judgement
            if len(self._known) > self._entries:
                self._known.popitem(last=False)
