"""Which replicas live, which learner owns a run, and the run's status."""

import asyncio
from collections.abc import Awaitable

import pytest

from shared.errors import Conflict, InvalidInput
from shared.protocol.replica import ReplicaInfo, ReplicaState
from shared.protocol.status import RunState, RunStatus
from shared.streams import Connection, RunStreams, list_runs
from shared.streams.keys import RunKeys
from shared.tree.draw import WeightVersion
from tests.waiting import wait_until_async


def replica(name: str) -> ReplicaInfo:
    return ReplicaInfo(name=name, url=f"http://{name}", state=ReplicaState.SERVING, version=WeightVersion(1, 2))


async def is_equal(answer: Awaitable[object], expected: object) -> bool:
    return await answer == expected


async def test_replicas_join_renew_expire_and_leave(run: RunStreams, connection: Connection) -> None:
    for name in ("b", "a", "c"):
        await run.replicas.announce(replica(name), 60)
    await run.replicas.announce(replica("silent"), 0.5)
    assert await run.replicas.live() == [replica(name) for name in ("a", "b", "c", "silent")]
    await run.replicas.withdraw("b")
    await run.replicas.withdraw("never-was")
    live = [replica("a"), replica("c")]
    await wait_until_async(lambda: is_equal(run.replicas.live(), live), 5)
    assert await connection.command("SCARD", RunKeys(run.run).replicas) == 2


async def test_a_replica_of_another_release_is_not_live(run: RunStreams, connection: Connection) -> None:
    await run.replicas.announce(replica("a"), 60)
    await connection.command("SET", RunKeys(run.run).replica("a"), '{"name": "a", "colour": "red"}')
    assert await run.replicas.live() == []


async def test_a_run_has_one_owner_and_generations_rise(connection: Connection, run: RunStreams) -> None:
    first, second = RunStreams(connection, run.run).lease, RunStreams(connection, run.run).lease
    assert await first.acquire("learner-1", 1) == 1
    with pytest.raises(Conflict, match=r"belongs to 'learner-1', whose lease ends in \d+\.\d s"):
        await second.acquire("learner-2", 1)
    await first.renew()
    await first.release()
    assert await second.acquire("learner-2", 1) == 2
    with pytest.raises(Conflict, match="acquire it first"):
        await first.renew()


async def test_a_restarted_owner_gets_the_lease_at_once_and_its_old_process_loses_it(
    connection: Connection, run: RunStreams
) -> None:
    old, new = RunStreams(connection, run.run).lease, RunStreams(connection, run.run).lease
    await old.acquire("learner", 1)
    assert await new.acquire("learner", 1) == 2
    with pytest.raises(Conflict, match="its generation is 2, this process has 1"):
        await old.renew()
    await old.release()
    await new.renew()
    with pytest.raises(Conflict):
        await RunStreams(connection, run.run).lease.acquire("another", 1)


async def test_an_owner_that_is_silent_loses_its_lease(connection: Connection, run: RunStreams) -> None:
    silent = RunStreams(connection, run.run, lease_seconds=0.1).lease
    next_owner = RunStreams(connection, run.run).lease
    await silent.acquire("a", 1)
    await wait_until_async(lambda: is_equal(connection.command("EXISTS", RunKeys(run.run).lease), 0), 5)
    assert await next_owner.acquire("b", 1) == 2
    with pytest.raises(Conflict):
        await silent.renew()


async def test_an_expired_lease_that_nobody_took_can_be_renewed(connection: Connection, run: RunStreams) -> None:
    lease = RunStreams(connection, run.run, lease_seconds=0.5).lease
    await lease.acquire("a", 1)
    await wait_until_async(lambda: is_equal(connection.command("EXISTS", RunKeys(run.run).lease), 0), 5)
    await lease.renew()
    with pytest.raises(Conflict):
        await run.lease.acquire("b", 1)


async def test_a_generation_is_higher_than_the_checkpoints_even_when_redis_forgot(
    connection: Connection, run: RunStreams
) -> None:
    lease = RunStreams(connection, run.run).lease
    assert await lease.acquire("a", 8) == 8
    await lease.release()
    assert await lease.acquire("a", 3) == 9
    await connection.command("DEL", RunKeys(run.run).lease, RunKeys(run.run).generation)
    await lease.renew()
    assert await RunStreams(connection, run.run).lease.acquire("a", 10) == 10
    assert await RunStreams(connection, run.run).lease.acquire("a", 2**52) == 2**52
    assert await RunStreams(connection, run.run).lease.acquire("a", 1) == 2**52 + 1


async def test_one_of_many_that_ask_at_once_gets_the_lease(connection: Connection, run: RunStreams) -> None:
    leases = [RunStreams(connection, run.run).lease for _ in range(8)]
    outcomes = await asyncio.gather(
        *(lease.acquire(f"learner-{index}", 1) for index, lease in enumerate(leases)), return_exceptions=True
    )
    assert [outcome for outcome in outcomes if not isinstance(outcome, Conflict)] == [1]


async def test_the_latest_status_stays_and_lists_the_run(run: RunStreams, connection: Connection) -> None:
    assert await run.status_keys.read() is None
    for step in (1, 2):
        await run.status_keys.publish(RunStatus(run=run.run, state=RunState.TRAINING, step=step))
    status = await run.status_keys.read()
    assert status is not None
    assert status.step == 2
    other = RunStreams(connection, f"{run.run}-b")
    await other.status_keys.publish(RunStatus(run=other.run, state=RunState.FINISHED))
    assert (await list_runs(connection))[:2] == [other.run, run.run]
    await other.forget()
    assert other.run not in await list_runs(connection)


async def test_a_stop_is_seen_until_it_is_cleared(run: RunStreams) -> None:
    assert not await run.status_keys.is_stop_requested()
    await run.status_keys.request_stop()
    await run.status_keys.request_stop()
    assert await run.status_keys.is_stop_requested()
    await run.status_keys.clear_stop()
    assert not await run.status_keys.is_stop_requested()


async def test_the_learner_publishes_its_url(run: RunStreams) -> None:
    assert await run.status_keys.learner_url() is None
    await run.status_keys.announce_learner("http://learner:8000")
    assert await run.status_keys.learner_url() == "http://learner:8000"


async def test_a_status_of_another_release_is_named_as_such(run: RunStreams, connection: Connection) -> None:
    await connection.command("SET", RunKeys(run.run).status, '{"run": "x"}')
    with pytest.raises(InvalidInput, match="another release"):
        await run.status_keys.read()


async def test_forgetting_a_run_leaves_its_lease_alone(run: RunStreams, connection: Connection) -> None:
    await run.replicas.announce(replica("a"), 60)
    await run.lease.acquire("a", 1)
    await run.status_keys.publish(RunStatus(run=run.run, state=RunState.FINISHED))
    await run.status_keys.request_stop()
    await run.incarnation()
    await run.tasks.take("a", 1, 0)
    await run.forget()
    keys = RunKeys(run.run)
    left = await connection.command("KEYS", f"*{{{run.run}}}*")
    assert {key.decode() for key in left} == {keys.lease, keys.generation}
    await run.lease.renew()
    assert await RunStreams(connection, run.run).lease.acquire("a", 1) == 2


@pytest.mark.parametrize("name", ["", "a b", "a{b}", "*", "a:b", "é", "x" * 200, "-a"])
def test_a_run_has_a_plain_name(connection: Connection, name: str) -> None:
    with pytest.raises(InvalidInput, match="a run's name"):
        RunStreams(connection, name)


async def test_of_two_owners_that_begin_again_at_one_generation_the_first_keeps_the_run(
    connection: Connection, run: RunStreams
) -> None:
    lives_on, began_again = RunStreams(connection, run.run).lease, RunStreams(connection, run.run).lease
    assert await lives_on.acquire("learner", 1) == 1
    await connection.command("FLUSHALL")
    assert await began_again.acquire("learner", 1) == 1
    assert began_again.origin != lives_on.origin
    with pytest.raises(Conflict, match="was taken over"):
        await lives_on.renew()
    await lives_on.release()
    await began_again.renew()
