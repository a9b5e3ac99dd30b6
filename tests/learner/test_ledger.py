"""The ledger: its identity holds at every moment, whatever arrives in whatever order."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from services.learner.ledger import MAX_REFEEDS, End, Ledger, Standing, TaskId
from services.learner.record.state import SavedLedger
from shared.errors import InvalidInput
from tests.accounts import is_balanced

_PASS_LENGTH = 5


def successor(task_id: TaskId) -> TaskId:
    """The next of a run over five problems."""
    if task_id.index + 1 < _PASS_LENGTH:
        return TaskId(task_id.epoch, task_id.index + 1)
    return TaskId(task_id.epoch + 1, 0)


class AnyLedger(RuleBasedStateMachine):
    """Random feeds, ends, refeeds, foreign results and restarts, against a record that remembers every event."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self.attempts: dict[TaskId, list[End | None]] = {}
        self.unmatched = {Standing.DUPLICATE: 0, Standing.FOREIGN: 0}

    def pick(self, data: st.DataObject) -> TaskId | None:
        out = sorted(self.ledger.outstanding)
        return data.draw(st.sampled_from(out)) if out else None

    @rule()
    def feed(self) -> None:
        cursor = self.ledger.cursor
        self.ledger.feed(cursor, successor(cursor))
        self.attempts[cursor] = [None]

    @rule(data=st.data(), end=st.sampled_from([End.USED, End.SKIPPED, End.FAILED]))
    def settle(self, data: st.DataObject, end: End) -> None:
        if task_id := self.pick(data):
            self.ledger.settle(task_id, end)
            self.attempts[task_id][-1] = end

    @rule(data=st.data(), end=st.sampled_from([End.STALE, End.FAILED]))
    def refeed(self, data: st.DataObject, end: End) -> None:
        if task_id := self.pick(data):
            attempt = self.ledger.refeed(task_id, end)
            self.attempts[task_id][-1] = end
            if len(self.attempts[task_id]) <= MAX_REFEEDS:
                assert attempt == len(self.attempts[task_id])
                self.attempts[task_id].append(None)
            else:
                assert attempt is None

    @rule(epoch=st.integers(0, 3), index=st.integers(0, _PASS_LENGTH - 1), attempt=st.integers(0, 3))
    def arrive(self, epoch: int, index: int, attempt: int) -> None:
        task_id = TaskId(epoch, index)
        standing = self.ledger.standing(task_id, attempt)
        if task_id not in self.attempts:
            assert standing is Standing.FOREIGN
        elif self.attempts[task_id][-1] is None and attempt == len(self.attempts[task_id]) - 1:
            assert standing is Standing.OUTSTANDING
            return
        else:
            assert standing is Standing.DUPLICATE
        self.ledger.count_unmatched(standing)
        self.unmatched[standing] += 1

    @rule()
    def restart(self) -> None:
        saved = SavedLedger.of(self.ledger)
        self.ledger = SavedLedger.model_validate_json(saved.model_dump_json()).load()

    @invariant()
    def the_accounts_say_what_happened(self) -> None:
        accounts = self.ledger.accounts
        assert is_balanced(accounts)
        feedings = [end for attempts in self.attempts.values() for end in attempts]
        assert accounts.fed == len(feedings)
        assert accounts.outstanding == feedings.count(None) == len(self.ledger.outstanding)
        for end in End:
            assert getattr(accounts, end.value) == feedings.count(end)
        assert accounts.duplicates == self.unmatched[Standing.DUPLICATE]
        assert accounts.foreign == self.unmatched[Standing.FOREIGN]


AnyLedger.TestCase.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
TestLedger = AnyLedger.TestCase


def test_tasks_are_fed_in_order_only() -> None:
    ledger = Ledger()
    with pytest.raises(ValueError, match="fed in order"):
        ledger.feed(TaskId(0, 1), TaskId(0, 2))


@pytest.mark.parametrize("text", ["", "3", "-1-2", "a-b", "1-2-3", "1_0-2", "9" * 5000 + "-1"])
def test_a_malformed_task_id_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        TaskId.parse(text)
