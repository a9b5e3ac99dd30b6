"""Batches on a real Redis: every task ends once, whatever arrives and whatever fails."""

import asyncio
import contextlib
import random
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from services.learner.ledger import End, Ledger, TaskId
from services.learner.metrics import LearnerMetrics
from services.learner.queue.batches import BatchCollector, Refill
from services.learner.queue.feed import Feed
from services.learner.queue.intake import Arrival, Intake
from services.learner.queue.problems import EncodedProblem
from services.learner.queue.task_sequence import TaskSequence
from services.learner.record.state import SavedLedger
from shared.errors import InvalidInput, Unavailable
from shared.protocol.status import RunState, RunStatus
from shared.protocol.task import Task
from shared.protocol.tree import ScoredTree
from shared.streams import Claim, RunStreams, StreamsFull, Unreadable
from shared.tree.draw import WeightVersion, rewards_differ
from shared.tree.ib_score import IBSettings
from tests.accounts import is_balanced
from tests.learner.policies import VOCAB_SIZE
from tests.learner.synthetic import draws, growth, scored
from tests.redis_process import RedisProcess
from tests.waiting import wait_until_async

BATCH = 4
NOW = WeightVersion(2, 10)
PROBLEMS = [EncodedProblem(f"p{number}", (3, 4 + number), "exact", {"gold": "1"}) for number in range(6)]


class AnotherReleases(ScoredTree):
    """A tree in the wire form of another release."""

    def pack(self) -> bytes:
        return b"another release's"


@dataclass
class LearnerQueue:
    """The queue of one learner process, and a replica that grows its tasks."""

    streams: RunStreams
    ledger: Ledger
    sequence: TaskSequence
    feed: Feed
    intake: Intake
    batches: BatchCollector
    metrics: LearnerMetrics

    @classmethod
    def open(
        cls,
        streams: RunStreams,
        saved: SavedLedger | None = None,
        *,
        straggler_seconds: float = 60.0,
        refill: Refill | None = None,
    ) -> "LearnerQueue":
        ledger = (saved or SavedLedger()).load()
        sequence = TaskSequence(streams.run, 0, PROBLEMS, growth(), IBSettings())
        metrics = LearnerMetrics()
        metrics.show_status(lambda: RunStatus(run="r", state=RunState.TRAINING, accounts=ledger.accounts))
        feed = Feed(streams, sequence, ledger, lambda: 2 * BATCH + batches.num_extra)
        intake = Intake(
            streams, sequence, ledger, feed, metrics, origins=lambda: {""}, max_staleness=1, vocab_size=VOCAB_SIZE
        )
        batches = BatchCollector(ledger, feed, intake, metrics, straggler_seconds=straggler_seconds, refill=refill)
        return cls(streams, ledger, sequence, feed, intake, batches, metrics)

    async def claim(self, count: int) -> list[Claim]:
        return await self.streams.tasks.take("replica", count, 5.0)

    async def grow(self, count: int, version: WeightVersion = NOW) -> list[Task]:
        """Grows tasks as a replica does."""
        claims: list[Claim] = []
        while len(claims) < count:
            claims += await self.claim(count - len(claims))
        for claim in claims:
            assert await self.streams.tasks.finish(claim, self.tree_of(claim.task, version))
        return [claim.task for claim in claims]

    def tree_of(self, of_task: Task, version: WeightVersion = NOW):
        return scored(of_task, draws(random.Random(of_task.id), 4, 0, versions=(version,), rewards=(1.0, 0.0)))

    async def grow_mixed(self, is_mixed: Iterable[bool]) -> list[Task]:
        """Grows a task for each of these, with rewards that differ or with equal ones."""
        grown = []
        for mixed in is_mixed:
            (claim,) = await self.claim(1)
            tree = self.tree_of(claim.task)
            if not mixed:
                tree = tree.model_copy(update={"draws": tuple(replace(draw, reward=1.0) for draw in tree.draws)})
            assert await self.streams.tasks.finish(claim, tree)
            grown.append(claim.task)
        return grown

    async def break_tree(self, claim: Claim) -> None:
        """A replica of another release finishes the task."""
        assert await self.streams.tasks.finish(claim, AnotherReleases(**dict(self.tree_of(claim.task))))

    async def send(self, *trees) -> None:
        """Puts trees on the stream without a task of this run."""
        for tree in trees:
            await self.streams.tasks.put([tree.task])
            claims = await self.claim(64)
            (claim,) = [one for one in claims if one.task == tree.task]
            await self.streams.tasks.release([one for one in claims if one is not claim])
            await self.streams.tasks.finish(claim, tree)

    async def grow_all_but_the_first(self, count: int) -> Claim:
        """Grows tasks as a replica does that has been given one very slow one."""
        first, *others = [claim for _ in range(count) for claim in await self.claim(1)]
        for claim in others:
            assert await self.streams.tasks.finish(claim, self.tree_of(claim.task))
        return first

    async def batch(self, version: WeightVersion = NOW):
        async with asyncio.timeout(20):
            return await self.batches.collect(BATCH, version)

    def scrape(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)


async def cancel(task: asyncio.Task[Any]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def queue(streams: RunStreams) -> LearnerQueue:
    return LearnerQueue.open(streams)


async def test_a_batch_is_fed_grown_used_and_acknowledged(queue: LearnerQueue) -> None:
    growing = asyncio.create_task(queue.grow(BATCH))
    batch = await queue.batch()
    await growing
    assert [str(arrival.task_id) for arrival in batch] == ["0-0", "0-1", "0-2", "0-3"]
    assert queue.ledger.accounts.outstanding == 2 * BATCH
    queue.intake.settle((arrival, End.USED) for arrival in batch)
    assert (queue.ledger.accounts.used, queue.ledger.accounts.outstanding) == (BATCH, BATCH)
    assert len(await queue.streams.trees.ids()) == BATCH
    await queue.intake.acknowledge(queue.intake.settled)
    assert await queue.streams.trees.ids() == set()
    assert queue.intake.settled.trees == ()


async def test_no_more_tasks_are_fed_than_the_capacity(queue: LearnerQueue) -> None:
    await queue.feed.top_up()
    await queue.feed.top_up()
    assert await queue.streams.tasks.depth() == (2 * BATCH, 0)


async def test_a_stale_tree_is_dropped_by_length_and_its_task_fed_again_at_most_twice(queue: LearnerQueue) -> None:
    await queue.feed.top_up()
    stale = WeightVersion(2, NOW.number - 2)
    taking = asyncio.create_task(queue.batch())
    (first, *_) = await queue.grow(1, stale)
    again: list[Task] = []
    while len(again) < 2:
        (claim,) = await queue.claim(1)
        version = stale if claim.task.id == first.id else NOW
        again += [claim.task] * (claim.task.id == first.id)
        if taking.done():
            await queue.streams.tasks.release([claim])
            queue.intake.settle((arrival, End.USED) for arrival in taking.result())
            taking = asyncio.create_task(queue.batch())
        else:
            await queue.streams.tasks.finish(claim, queue.tree_of(claim.task, version))
    assert [one.attempt for one in again] == [1, 2]
    assert len({first.seed, *(one.seed for one in again)}) == 3
    await cancel(taking)
    await queue.batches.collect(0, NOW)
    assert is_balanced(queue.ledger.accounts)
    assert queue.ledger.accounts.stale >= 2
    assert queue.scrape("ibtpo_learner_stale_trajectory_tokens_count") == 4 * queue.ledger.accounts.stale


async def test_a_run_whose_trees_are_all_stale_ends_with_the_reason(
    queue: LearnerQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.learner.queue.intake._MAX_STALE_IN_ROW", 30)

    async def grow_stale() -> None:
        while True:
            await queue.grow(1, WeightVersion(2, NOW.number - 5))

    growing = asyncio.create_task(grow_stale())
    with pytest.raises(InvalidInput, match=r"the last 30 trees were stale: fake grew the last with 2\.5"):
        await queue.batch()
    await cancel(growing)


async def test_a_tree_that_is_quick_to_grow_overtakes_none_that_is_slow(queue: LearnerQueue) -> None:
    await queue.feed.top_up()
    slow = await queue.grow_all_but_the_first(BATCH + 2)
    taking = asyncio.create_task(queue.batch())
    done, _ = await asyncio.wait({taking}, timeout=1.5)
    assert not done
    assert await queue.streams.tasks.finish(slow, queue.tree_of(slow.task))
    first = await taking
    assert [str(arrival.task_id) for arrival in first] == ["0-0", "0-1", "0-2", "0-3"]
    queue.intake.settle((arrival, End.USED) for arrival in first)
    await queue.feed.top_up()
    await queue.grow(BATCH - 2)
    second = await queue.batch(WeightVersion(2, NOW.number + 1))
    assert [(str(one.task_id), one.staleness) for one in second] == [("0-4", 1), ("0-5", 1), ("1-0", 1), ("1-1", 1)]


async def test_a_full_batch_goes_without_a_tree_that_it_has_long_waited_for(
    streams: RunStreams,
) -> None:
    queue = LearnerQueue.open(streams, straggler_seconds=0.0)
    await queue.feed.top_up()
    slow = await queue.grow_all_but_the_first(BATCH + 1)
    first = await queue.batch()
    assert [str(arrival.task_id) for arrival in first] == ["0-1", "0-2", "0-3", "0-4"]
    queue.intake.settle((arrival, End.USED) for arrival in first)
    await queue.feed.top_up()
    await queue.grow(BATCH)
    second = await queue.batch()  # which does not wait for it again
    assert [str(arrival.task_id) for arrival in second] == ["0-5", "1-0", "1-1", "1-2"]
    queue.intake.settle((arrival, End.USED) for arrival in second)
    assert await queue.streams.tasks.finish(slow, queue.tree_of(slow.task))
    await queue.grow(BATCH - 1)
    assert [str(arrival.task_id) for arrival in await queue.batch()] == ["0-0", "1-3", "1-4", "1-5"]


async def test_a_task_that_is_fed_again_is_the_last_in_order(queue: LearnerQueue) -> None:
    await queue.feed.top_up()
    (stale,) = await queue.grow(1, WeightVersion(2, NOW.number - 2))
    taking = asyncio.create_task(queue.batch())
    await queue.grow(BATCH)
    assert [str(arrival.task_id) for arrival in await taking] == ["0-1", "0-2", "0-3", "0-4"]
    assert list(map(str, queue.ledger.outstanding))[-1] == stale.id


async def test_a_tree_that_has_grown_stale_while_it_was_held_is_dropped(queue: LearnerQueue) -> None:
    await queue.feed.top_up()
    await queue.grow(2 * BATCH)
    held = asyncio.create_task(queue.batches.collect(2 * BATCH + 1, NOW))
    await wait_until_async(lambda: len(queue.intake.held) == 2 * BATCH)
    await cancel(held)
    taking = asyncio.create_task(queue.batch(WeightVersion(2, NOW.number + 2)))
    await queue.grow(BATCH, WeightVersion(2, NOW.number + 2))
    assert {arrival.staleness for arrival in await taking} == {0}
    assert queue.ledger.accounts.stale == 2 * BATCH
    assert is_balanced(queue.ledger.accounts)


@pytest.mark.parametrize(("number", "is_wanted"), [(8, False), (9, True), (10, True), (11, True), (12, False)])
def test_staleness_is_the_distance_to_the_farthest_token(number: int, is_wanted: bool, queue: LearnerQueue) -> None:
    record = draws(random.Random(1), 3, 2, versions=(NOW, WeightVersion(1, number)))
    tree = scored(queue.sequence.task(queue.ledger.cursor), record)
    assert (tree.staleness(NOW) <= 1) == is_wanted


async def test_duplicates_and_foreign_results_are_counted(queue: LearnerQueue) -> None:
    await queue.feed.top_up()
    known = await queue.grow(BATCH)
    batch = await queue.batch()
    queue.intake.settle((arrival, End.USED) for arrival in batch)
    await queue.grow(BATCH)
    await queue.send(
        queue.tree_of(known[0]),  # grown twice
        queue.tree_of(queue.sequence.task(batch[1].task_id, 1)),  # an attempt of a task that has ended
        queue.tree_of(known[1].model_copy(update={"run": "other"})),
        queue.tree_of(known[1].model_copy(update={"prompt_ids": (9,)})),  # the id, of other data
        queue.tree_of(known[1].model_copy(update={"id": "0-x"})),
        queue.tree_of(known[1].model_copy(update={"id": "7-3"})),  # far beyond what was fed
    )
    taking = asyncio.create_task(queue.batches.collect(BATCH + 1, NOW))
    await wait_until_async(lambda: queue.ledger.accounts.duplicates + queue.ledger.accounts.foreign >= 6)
    await cancel(taking)
    accounts = queue.ledger.accounts
    assert (accounts.duplicates, accounts.foreign) == (2, 4)
    assert (accounts.used, is_balanced(accounts)) == (BATCH, True)


async def test_a_task_that_comes_back_as_another_is_sent_again(queue: LearnerQueue) -> None:
    await queue.feed.top_up()
    (claim,) = await queue.claim(1)
    other = claim.task.model_copy(update={"growth": growth(max_tokens=7)})
    assert await queue.streams.tasks.finish(claim, queue.tree_of(other))
    await queue.intake.poll(1, NOW)
    assert (queue.ledger.accounts.foreign, queue.ledger.outstanding[TaskId(0, 0)]) == (1, 0)
    growing = asyncio.create_task(queue.grow(2 * BATCH))
    batch = await queue.batch()
    await growing
    assert [str(arrival.task_id) for arrival in batch] == ["0-0", "0-1", "0-2", "0-3"]


async def test_tasks_that_vanish_from_the_streams_are_sent_again(
    queue: LearnerQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.learner.queue.batches._CHECK_SECONDS", 0.0)
    await queue.feed.top_up()
    for _ in range(2):
        await queue.feed.restore_lost(())
    await queue.streams.clear()
    taking = asyncio.create_task(queue.batch())
    await queue.grow(BATCH)
    assert len(await taking) == BATCH


async def test_two_trees_of_one_task_in_a_batch_are_one(queue: LearnerQueue) -> None:
    await queue.feed.top_up()
    (task, *_) = await queue.grow(1)
    await queue.send(queue.tree_of(task))
    await queue.grow(BATCH - 1)
    batch = await queue.batch()
    assert len({arrival.task_id for arrival in batch}) == BATCH
    assert queue.ledger.accounts.duplicates == 1


async def test_a_dead_letter_ends_its_feeding_as_failed(queue: LearnerQueue) -> None:
    await queue.feed.top_up()
    (claim,) = await queue.claim(1)
    await queue.streams.tasks.give_up(claim, "the prompt is too long", "replica")
    await queue.grow(BATCH)
    await queue.batch()
    accounts = queue.ledger.accounts
    assert (accounts.failed, accounts.fed, accounts.outstanding) == (1, 2 * BATCH + 1, 2 * BATCH)
    assert await queue.streams.dead_letters.ids() == {(claim.task.id, 0)}
    await queue.intake.acknowledge(queue.intake.settled)
    assert await queue.streams.dead_letters.ids() == set()


async def test_a_tree_that_cannot_be_read_ends_its_feeding_and_the_task_is_fed_again_at_most_twice(
    queue: LearnerQueue,
) -> None:
    for attempt in (0, 1, 2):
        await queue.feed.top_up()
        (claim,) = [one for one in await queue.claim(64) if (one.task.id, one.task.attempt) == ("0-0", attempt)]
        await queue.break_tree(claim)
        await queue.intake.poll(1, NOW)
    assert TaskId(0, 0) not in queue.ledger.outstanding
    accounts = queue.ledger.accounts
    assert (accounts.failed, is_balanced(accounts)) == (3, True)
    assert queue.scrape("ibtpo_learner_trees_refused_total") == 3
    assert len(queue.intake.settled.trees) == 3


async def test_a_tree_that_nothing_can_be_learned_from_ends_its_feeding_as_failed(queue: LearnerQueue) -> None:
    await queue.feed.top_up()
    (claim,) = await queue.claim(1)
    tree = queue.tree_of(claim.task)
    alien = replace(tree.draws[0], token_ids=(VOCAB_SIZE,) * len(tree.draws[0].token_ids))
    await queue.streams.tasks.finish(claim, scored(claim.task, (alien, *tree.draws[1:])))
    await queue.intake.poll(1, NOW)
    assert (queue.ledger.accounts.failed, queue.ledger.outstanding[TaskId(0, 0)]) == (1, 1)


async def test_a_letter_that_cannot_be_read_ends_its_feeding_as_failed(queue: LearnerQueue) -> None:
    await queue.feed.top_up()
    (claim,) = await queue.claim(1)
    unreadable = replace(claim, task=Unreadable(claim.task.id, 0, "of another release"))
    await queue.streams.tasks.give_up(unreadable, "nobody can read it", "replica")
    await queue.grow(BATCH)
    await queue.batch()
    assert queue.ledger.accounts.failed == 1


async def test_a_run_whose_tasks_are_all_given_up_ends_with_the_reason(
    queue: LearnerQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.learner.queue.intake._MAX_FAILURES_IN_ROW", 2 * BATCH)
    await queue.feed.top_up()
    for claim in await queue.claim(2 * BATCH):
        await queue.streams.tasks.give_up(claim, "no kind 'exct'; there are exact, math", "replica")
    with pytest.raises(InvalidInput, match="8 tasks in a row failed, the last one: no kind 'exct'"):
        await queue.batch()


async def test_the_scraped_accounts_are_balanced(queue: LearnerQueue) -> None:
    await queue.feed.top_up()
    await queue.grow(BATCH)
    queue.intake.settle((arrival, End.SKIPPED) for arrival in await queue.batch())
    ended = [queue.scrape("ibtpo_learner_tasks_ended_total", end=end.value) for end in End]
    assert queue.scrape("ibtpo_learner_tasks_ended_total", end="skipped") == BATCH
    assert queue.scrape("ibtpo_learner_tasks_fed_total") == sum(ended) + queue.scrape("ibtpo_learner_tasks_outstanding")


async def test_after_a_crash_what_was_not_acknowledged_comes_again(queue: LearnerQueue) -> None:
    """Two batches are used, only the first is in a checkpoint: the second is used again, none of the first."""
    await queue.feed.top_up()
    await queue.grow(BATCH)
    queue.intake.settle((arrival, End.USED) for arrival in await queue.batch())
    saved, settled = SavedLedger.of(queue.ledger), queue.intake.settled
    await queue.intake.acknowledge(settled)
    await queue.grow(BATCH)
    second = await queue.batch()
    queue.intake.settle((arrival, End.USED) for arrival in second)
    await queue.feed.top_up()
    assert queue.ledger.accounts.fed == 4 * BATCH

    later = LearnerQueue.open(queue.streams, saved)
    await later.feed.catch_up()
    await later.intake.recover()
    # 8 before the checkpoint and 8 after it: all are found on the streams
    assert later.ledger.accounts.fed == 4 * BATCH
    again = await later.batch()
    assert [arrival.task_id for arrival in again] == [arrival.task_id for arrival in second]
    assert later.ledger.accounts.duplicates == 0
    assert (await later.streams.tasks.depth()).queued == 2 * BATCH


async def test_after_a_crash_between_checkpoint_and_acknowledgement_nothing_is_used_twice(queue: LearnerQueue) -> None:
    await queue.feed.top_up()
    await queue.grow(BATCH)
    first = await queue.batch()
    queue.intake.settle((arrival, End.USED) for arrival in first)
    later = LearnerQueue.open(queue.streams, SavedLedger.of(queue.ledger))
    await later.feed.catch_up()
    await later.intake.recover()
    await later.grow(BATCH)
    second = await later.batch()
    assert {one.task_id for one in first} & {one.task_id for one in second} == set()
    assert (later.ledger.accounts.duplicates, later.ledger.accounts.used) == (BATCH, BATCH)


async def test_a_stop_in_mid_batch_lets_go_of_nothing_that_was_not_used(queue: LearnerQueue) -> None:
    await queue.feed.top_up()
    grown = await queue.grow(BATCH - 1)
    taking = asyncio.create_task(queue.batches.collect(BATCH, NOW))
    await wait_until_async(lambda: len(queue.intake.held) == BATCH - 1)
    await cancel(taking)
    assert queue.intake.settled.trees == ()
    later = LearnerQueue.open(queue.streams, SavedLedger.of(queue.ledger))
    await later.feed.catch_up()
    await later.intake.recover()
    await later.grow(1)
    batch = await later.batch()
    assert {task.id for task in grown} <= {str(arrival.task_id) for arrival in batch}


async def test_trees_whose_delivery_was_cut_come_again(queue: LearnerQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    take = queue.streams.trees.take
    cut: list[int] = []

    async def cut_once(*arguments: Any) -> Any:
        deliveries = await take(*arguments)
        if deliveries and not cut:
            cut.append(len(deliveries))
            raise Unavailable("the reply was lost")
        return deliveries

    monkeypatch.setattr(queue.streams.trees, "take", cut_once)
    await queue.feed.top_up()
    await queue.grow(BATCH)
    assert len(await queue.batch()) == BATCH
    assert cut == [BATCH]
    assert queue.ledger.accounts.duplicates == 0


async def test_only_what_is_not_known_is_fetched_again_and_a_few_at_a_time(
    queue: LearnerQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.learner.queue.intake._MAX_TREES", 3)
    redeliver, fetched = queue.streams.trees.redeliver, []

    async def noted(consumer: str, entry_ids: list[str]) -> Any:
        fetched.append(len(entry_ids))
        return await redeliver(consumer, entry_ids)

    monkeypatch.setattr(queue.streams.trees, "redeliver", noted)
    await queue.feed.top_up()
    await queue.grow(2 * BATCH)
    queue.intake.settle((arrival, End.USED) for arrival in await queue.batch())
    await queue.intake.recover()
    await queue.batch()
    assert fetched == []
    later = LearnerQueue.open(queue.streams)
    await later.feed.catch_up()
    await later.intake.recover()
    assert len(await later.batch()) == BATCH
    assert fetched == [3, 1]


async def test_dead_letters_after_the_checkpoint_are_counted_by_the_next_process(queue: LearnerQueue) -> None:
    await queue.feed.top_up()
    saved = SavedLedger.of(Ledger())
    (claim,) = await queue.claim(1)
    await queue.streams.tasks.give_up(claim, "no", "replica")
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.3):
            await queue.batches.collect(BATCH, NOW)
    assert queue.ledger.accounts.failed == 1
    later = LearnerQueue.open(queue.streams, saved)
    await later.feed.catch_up()
    await later.intake.recover()
    assert later.ledger.accounts.failed == 1
    assert later.ledger.accounts.fed == queue.ledger.accounts.fed


async def test_a_foreign_id_far_ahead_is_not_caught_up_with(queue: LearnerQueue) -> None:
    await queue.feed.top_up()
    stray = queue.sequence.task(TaskId(10**6, 0))
    await queue.streams.tasks.put([stray, stray.model_copy(update={"id": "no number"})])
    later = LearnerQueue.open(queue.streams)
    await later.feed.catch_up()
    assert later.ledger.accounts.fed == 2 * BATCH


async def test_what_a_redis_lost_is_fed_again(queue: LearnerQueue, redis_process: RedisProcess) -> None:
    await queue.feed.top_up()
    await queue.streams.forget()
    taking = asyncio.create_task(queue.batch())
    await queue.grow(BATCH)
    batch = await taking
    assert [str(arrival.task_id) for arrival in batch] == ["0-0", "0-1", "0-2", "0-3"]
    assert queue.ledger.accounts.fed == 2 * BATCH


async def test_the_streams_are_looked_through_only_after_redis_may_have_lost_something(
    queue: LearnerQueue, redis_process: RedisProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids, looks = queue.streams.trees.ids, []

    async def noted() -> Any:
        looks.append(1)
        return await ids()

    monkeypatch.setattr(queue.streams.trees, "ids", noted)
    await queue.feed.top_up()
    for _ in range(3):
        await queue.feed.restore_lost(())
    assert len(looks) == 1
    redis_process.command("FLUSHALL")
    for _ in range(4):
        await queue.feed.restore_lost(())
    assert len(looks) == 3
    await queue.feed.top_up()
    assert len(await queue.streams.tasks.ids()) == 2 * BATCH


async def test_trees_are_taken_from_a_redis_that_is_full_and_used_ones_are_to_make_room(
    queue: LearnerQueue, redis_process: RedisProcess
) -> None:
    await queue.feed.top_up()
    await queue.grow(2 * BATCH)
    queue.intake.settle((arrival, End.USED) for arrival in await queue.batch())
    redis_process.command("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(StreamsFull):
        await queue.batch()
    await queue.intake.acknowledge(queue.intake.settled)
    assert [str(arrival.task_id) for arrival in await queue.batch()] == ["0-4", "0-5", "1-0", "1-1"]
    redis_process.command("CONFIG", "SET", "maxmemory", "0")
    await queue.feed.top_up()
    assert (await queue.streams.tasks.depth()).queued == BATCH


async def test_a_redis_that_goes_away_is_waited_for(queue: LearnerQueue, redis_process: RedisProcess) -> None:
    redis_process.kill()
    taking = asyncio.create_task(queue.batch())
    await wait_until_async(lambda: queue.scrape("ibtpo_learner_stream_failures_total"))
    assert not taking.done()
    redis_process.start()
    await queue.grow(BATCH)
    assert len(await taking) == BATCH
    assert (await queue.streams.tasks.depth()).queued == BATCH


# --- refilling: only trees with a signal count


def refilled(streams: RunStreams, max_trees: int = 10 * BATCH, **settings: Any) -> LearnerQueue:
    return LearnerQueue.open(streams, refill=Refill(lambda tree: rewards_differ(tree.rewards), max_trees), **settings)


def settle(queue: LearnerQueue, batch: Iterable[Arrival]) -> list[bool]:
    """Ends the batch as a step does; which of its trees have a signal."""
    has_signal = [rewards_differ(one.tree.rewards) for one in batch]
    queue.intake.settle((one, End.USED if mixed else End.SKIPPED) for one, mixed in zip(batch, has_signal, strict=True))
    return has_signal


async def test_a_batch_waits_for_enough_trees_with_a_signal(streams: RunStreams) -> None:
    queue = refilled(streams)
    await queue.feed.top_up()
    is_mixed = [True, False, False, True, False, True, False, False]
    tasks = await queue.grow_mixed(is_mixed)
    collecting = asyncio.create_task(queue.batch())
    # five trees without a signal are here: five more tasks may be outstanding
    await wait_until_async(lambda: len(queue.ledger.outstanding) == 2 * BATCH + 5)
    assert not collecting.done()
    tasks += await queue.grow_mixed([False, True, True])
    batch = await collecting
    assert [str(one.task_id) for one in batch] == [task.id for task in tasks[:10]], "the last belongs to the next batch"
    assert sum(settle(queue, batch)) == BATCH
    accounts = queue.ledger.accounts
    assert (accounts.used, accounts.skipped) == (BATCH, 6)
    assert is_balanced(accounts)
    assert queue.batches.num_extra == 0
    await queue.feed.top_up()
    assert len(queue.ledger.outstanding) == 2 * BATCH


async def test_refilling_ends_at_the_bound_of_trees(streams: RunStreams) -> None:
    queue = refilled(streams, max_trees=6)
    await queue.feed.top_up()
    await queue.grow_mixed([False, True, False, False, False, False, True])
    batch = await queue.batch()
    assert settle(queue, batch) == [False, True, False, False, False, False]
    assert is_balanced(queue.ledger.accounts)


async def test_refilling_ends_with_the_tokens_that_are_left(streams: RunStreams) -> None:
    queue = refilled(streams)
    await queue.feed.top_up()
    tasks = await queue.grow_mixed([False] * 8)
    tokens = [queue.tree_of(task).usage.generated_tokens for task in tasks]
    async with asyncio.timeout(20):
        batch = await queue.batches.collect(BATCH, NOW, sum(tokens[:5]) - 1)
    assert len(batch) == 5


async def test_without_refilling_the_last_batch_is_as_large_as_the_others(queue: LearnerQueue) -> None:
    await queue.feed.top_up()
    await queue.grow(BATCH)
    async with asyncio.timeout(20):
        assert len(await queue.batches.collect(BATCH, NOW, 1)) == BATCH


async def test_a_refilled_batch_waits_for_older_tasks_and_passes_stragglers(streams: RunStreams) -> None:
    queue = refilled(streams, straggler_seconds=0.0)
    await queue.feed.top_up()
    (slow,) = await queue.claim(1)
    await queue.grow_mixed([False, True, True, True, False, True, True])
    batch = await queue.batch()
    assert str(slow.task.id) not in [str(one.task_id) for one in batch]
    assert settle(queue, batch) == [False, True, True, True, False, True]
    assert is_balanced(queue.ledger.accounts)


async def test_a_restart_in_the_middle_of_refilling_loses_no_tree(streams: RunStreams) -> None:
    queue = refilled(streams)
    await queue.feed.top_up()
    await queue.grow_mixed([False, True, False, True])
    collecting = asyncio.create_task(queue.batch())
    await wait_until_async(lambda: len(queue.intake.held) == 4)
    saved = SavedLedger.of(queue.ledger)
    await cancel(collecting)
    again = LearnerQueue.open(streams, saved, refill=Refill(lambda tree: rewards_differ(tree.rewards), 40))
    await again.feed.catch_up()
    await again.intake.recover()
    await queue.grow_mixed([True, True])
    batch = await again.batch()
    assert settle(again, batch) == [False, True, False, True, True, True]
    assert is_balanced(again.ledger.accounts)
