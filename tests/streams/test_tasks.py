"""Tasks: claims with a heartbeat, one end per task, whoever and however often."""

import asyncio
import random
import time

import pytest

from shared.errors import Overloaded
from shared.streams import Claim, Connection, RunStreams, Unreadable
from shared.streams.keys import RunKeys
from tests.redis_process import RedisProcess
from tests.streams.samples import a_task, a_tree, tasks
from tests.waiting import wait_until_async


def ids_of(claims: list[Claim]) -> list[str]:
    return [claim.task.id for claim in claims]


async def test_tasks_are_taken_in_order_and_each_by_one(run: RunStreams) -> None:
    await run.tasks.put(tasks(5))
    assert await run.tasks.depth() == (5, 0)
    first, second = await run.tasks.take("a", 3, 0), await run.tasks.take("b", 3, 0)
    assert (ids_of(first), ids_of(second)) == (["0-0", "0-1", "0-2"], ["0-3", "0-4"])
    assert first[0].task == a_task(0)
    assert {claim.deliveries for claim in first} == {1}
    assert await run.tasks.depth() == (0, 5)
    assert await run.tasks.ids() == {(f"0-{index}", 0) for index in range(5)}


async def test_tasks_put_before_anyone_reads_are_not_missed(run: RunStreams, connection: Connection) -> None:
    await run.tasks.put(tasks(1))
    late = RunStreams(connection, run.run)
    assert ids_of(await late.tasks.take("late", 5, 0)) == ["0-0"]


async def test_taking_waits_for_a_task_and_no_longer(run: RunStreams, shared_server: RedisProcess) -> None:
    start = time.monotonic()
    assert await run.tasks.take("a", 1, 0.3) == []
    assert 0.25 < time.monotonic() - start < 10
    waiting = asyncio.create_task(run.tasks.take("a", 1, 30))
    await wait_until_async(shared_server.has_blocked_client)
    await run.tasks.put(tasks(1))
    assert ids_of(await asyncio.wait_for(waiting, 2)) == ["0-0"]


async def test_taking_none_takes_none(run: RunStreams) -> None:
    await run.tasks.put(tasks(1))
    assert await run.tasks.take("a", 0, 10) == []


async def test_finishing_appends_the_tree_and_ends_the_task(run: RunStreams) -> None:
    await run.tasks.put(tasks(1))
    [claim] = await run.tasks.take("a", 1, 0)
    assert await run.tasks.finish(claim, a_tree(claim.task))
    assert await run.tasks.depth() == (0, 0)
    assert await run.tasks.ids() == set()
    assert await run.trees.ids() == {("0-0", 0)}
    [delivery] = await run.trees.take("learner", 5, 0)
    assert delivery.item == a_tree(claim.task)


async def test_finishing_twice_leaves_one_tree(run: RunStreams) -> None:
    await run.tasks.put(tasks(1))
    [claim] = await run.tasks.take("a", 1, 0)
    assert await run.tasks.finish(claim, a_tree(claim.task))
    assert not await run.tasks.finish(claim, a_tree(claim.task))
    assert not await run.tasks.give_up(claim, "too late", "a")
    assert await run.trees.depth() == (1, 0)
    assert await run.dead_letters.depth() == (0, 0)


async def test_a_claim_without_heartbeat_is_taken_by_another(run: RunStreams, connection: Connection) -> None:
    other = RunStreams(connection, run.run, claim_after_seconds=1.0)
    await run.tasks.put(tasks(2))
    lost, kept = await run.tasks.take("a", 2, 0)
    deadline = time.monotonic() + 10
    taken: list[Claim] = []
    while not taken and time.monotonic() < deadline:
        assert await run.tasks.keep_alive("a", [kept.entry_id]) == {kept.entry_id}
        taken = await other.tasks.take("b", 5, 0.02)
    assert ids_of(taken) == [lost.task.id]
    assert taken[0].deliveries == 2
    assert await run.tasks.keep_alive("a", [lost.entry_id, kept.entry_id]) == {kept.entry_id}
    assert await run.tasks.keep_alive("b", [lost.entry_id]) == {lost.entry_id}


async def test_a_heartbeat_does_not_count_as_a_delivery(run: RunStreams) -> None:
    await run.tasks.put(tasks(1))
    [claim] = await run.tasks.take("a", 1, 0)
    for _ in range(5):
        await run.tasks.keep_alive("a", [claim.entry_id])
    [again] = await run.tasks.take("b", 1, 5)
    assert again.deliveries == 2


async def test_of_two_growers_of_one_task_the_first_to_finish_counts(run: RunStreams) -> None:
    await run.tasks.put(tasks(1))
    [slow] = await run.tasks.take("slow", 1, 0)
    [fast] = await run.tasks.take("fast", 1, 5)
    assert await run.tasks.finish(slow, a_tree(slow.task))
    assert await run.tasks.keep_alive("fast", [fast.entry_id]) == set()
    assert not await run.tasks.finish(fast, a_tree(fast.task))
    assert await run.trees.depth() == (1, 0)


async def test_a_released_claim_can_be_taken_at_once_and_was_no_delivery(
    connection: Connection, run: RunStreams
) -> None:
    patient = RunStreams(connection, run.run, claim_after_seconds=3600)
    await patient.tasks.put(tasks(2))
    claims = await patient.tasks.take("a", 2, 0)
    assert await patient.tasks.take("b", 2, 0) == []
    await patient.tasks.release(claims)
    again = await patient.tasks.take("b", 2, 0)
    assert [(claim.task.id, claim.deliveries) for claim in again] == [("0-0", 1), ("0-1", 1)]
    await patient.tasks.release(again, failed=True)
    assert {claim.deliveries for claim in await patient.tasks.take("c", 2, 0)} == {2}


async def test_releasing_what_another_has_claimed_takes_it_from_nobody(run: RunStreams, connection: Connection) -> None:
    patient = RunStreams(connection, run.run, claim_after_seconds=3600)
    await run.tasks.put(tasks(1))
    lost = await run.tasks.take("a", 1, 0)
    [held] = await run.tasks.take("b", 1, 5)
    await run.tasks.release(lost)
    assert await patient.tasks.take("c", 1, 0) == []
    assert await run.tasks.keep_alive("b", [held.entry_id]) == {held.entry_id}


async def test_a_waiting_replica_gets_what_another_releases(
    connection: Connection, run: RunStreams, shared_server: RedisProcess
) -> None:
    patient = RunStreams(connection, run.run, claim_after_seconds=3600)
    await patient.tasks.put(tasks(1))
    claims = await patient.tasks.take("a", 1, 0)
    waiting = asyncio.create_task(patient.tasks.take("b", 1, 30))
    await wait_until_async(shared_server.has_blocked_client)
    await patient.tasks.release(claims)
    assert ids_of(await asyncio.wait_for(waiting, 3)) == ["0-0"]


async def test_a_task_that_is_given_up_is_a_dead_letter_with_its_reason(run: RunStreams) -> None:
    await run.tasks.put(tasks(1))
    [claim] = await run.tasks.take("a", 1, 0)
    assert await run.tasks.give_up(claim, "the prompt is too long", "replica-a")
    assert await run.tasks.depth() == (0, 0)
    [delivery] = await run.dead_letters.take("learner", 5, 0)
    dead_letter = delivery.item
    assert (dead_letter.task, dead_letter.reason, dead_letter.deliveries, dead_letter.replica) == (
        claim.task,
        "the prompt is too long",
        1,
        "replica-a",
    )


async def test_an_unreadable_task_is_taken_as_such_and_can_be_given_up(run: RunStreams, connection: Connection) -> None:
    stream = RunKeys(run.run).tasks
    await connection.command("XADD", stream, "*", "id", "0-0", "attempt", "0", "task", b"\xff{")
    await connection.command("XADD", stream, "*", "something", "else")
    await run.tasks.put(tasks(1))
    broken, stray, good = await run.tasks.take("a", 5, 0)
    assert good.task == a_task(0)
    assert isinstance(broken.task, Unreadable)
    assert isinstance(stray.task, Unreadable)
    assert [(one.task.id, one.task.attempt) for one in (broken, stray)] == [("0-0", 0), ("", -1)]
    for claim in (broken, stray):
        assert await run.tasks.give_up(claim, "nobody can read it", "replica-a")
    assert await run.tasks.depth() == (0, 1)
    taken = await run.dead_letters.take("learner", 5, 0)
    dead_letters = [delivery.item for delivery in taken]
    assert [(dead_letter.id, dead_letter.attempt) for dead_letter in dead_letters] == [("0-0", 0), ("", -1)]
    assert dead_letters[0].reason == "nobody can read it"
    await run.dead_letters.acknowledge([delivery.entry_id for delivery in taken])
    assert await run.dead_letters.newest_reasons(5) == ["nobody can read it"] * 2


async def test_the_stream_is_bounded_and_nothing_is_put_by_halves(connection: Connection, run: RunStreams) -> None:
    small = RunStreams(connection, run.run, max_tasks=3)
    await small.tasks.put(tasks(2))
    with pytest.raises(Overloaded, match="at most 3"):
        await small.tasks.put(tasks(2))
    assert await small.tasks.depth() == (2, 0)
    [claim] = await small.tasks.take("a", 1, 0)
    await small.tasks.finish(claim, a_tree(claim.task))
    await small.tasks.put(tasks(2))


async def test_two_attempts_of_a_task_are_told_apart(run: RunStreams) -> None:
    await run.tasks.put([a_task(0, 0), a_task(0, 1)])
    assert await run.tasks.ids() == {("0-0", 0), ("0-0", 1)}


async def test_ids_of_a_long_stream_are_complete(run: RunStreams) -> None:
    await run.tasks.put(tasks(500))
    await run.tasks.take("a", 100, 0)
    assert await run.tasks.ids() == {(f"0-{index}", 0) for index in range(500)}


async def test_runs_on_one_server_do_not_meet(connection: Connection, run: RunStreams) -> None:
    other = RunStreams(connection, f"{run.run}-other")
    await run.tasks.put(tasks(1))
    assert await other.tasks.take("a", 1, 0) == []
    assert await other.tasks.ids() == set()


async def test_nothing_is_lost_or_doubled_among_growers_that_die_release_and_finish(run: RunStreams) -> None:
    """Growers that misbehave at random: in the end each task has exactly one tree or one dead letter."""
    num_tasks = 60
    await run.tasks.put(tasks(num_tasks))

    async def grow(name: str, seed: int) -> None:
        rng = random.Random(seed)
        while (await run.tasks.depth()) != (0, 0):
            for claim in await run.tasks.take(name, rng.randint(1, 4), 0.05):
                fate = rng.random()
                if fate < 0.25:
                    continue  # forgotten, as by a crash
                if fate < 0.45:
                    await run.tasks.release([claim], failed=rng.random() < 0.5)
                elif fate < 0.55:
                    await run.tasks.give_up(claim, "chance", name)
                else:
                    await run.tasks.finish(claim, a_tree(claim.task))

    await asyncio.wait_for(asyncio.gather(*(grow(f"grower-{seed}", seed) for seed in range(4))), 30)
    trees = await run.trees.take("learner", 1000, 0)
    dead_letters = await run.dead_letters.take("learner", 1000, 0)
    ended = [delivery.item.task.id for delivery in trees] + [delivery.item.task.id for delivery in dead_letters]
    assert sorted(ended) == sorted(task.id for task in tasks(num_tasks))
