"""The harvest on a real Redis: claims are kept, finished, given back or buried, and none is lost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from services.rollout.harvest import Harvest
from services.rollout.metrics import RolloutMetrics
from shared.errors import InvalidInput, Overloaded, Unavailable
from shared.protocol.task import Growth, Task
from shared.protocol.tree import ScoredTree, TreeUsage
from shared.streams import RunStreams, connect
from shared.streams.keys import RunKeys
from shared.tree.draw import Draw, Finish, VersionSpan, WeightVersion
from shared.tree.expansion import IndependentSampler

GROWTH = Growth(sampler=IndependentSampler(initial_draws=1))


def task(index: int) -> Task:
    return Task(
        run="r",
        id=f"0-{index}",
        problem_id="p",
        prompt_ids=(1, 2),
        kind="exact",
        answer_key={},
        growth=GROWTH,
        seed=index,
    )


def tree_of(grown: Task, replica: str) -> ScoredTree:
    draw = Draw(None, 0, (3,), (-0.5,), (1,), (VersionSpan(WeightVersion(1, 0), 0, 1),), Finish.STOP, 1.0)
    return ScoredTree(task=grown, replica=replica, draws=(draw,), usage=TreeUsage(generated_tokens=1))


class StandInGrower:
    """Grows at once, or as a test says for one task."""

    def __init__(self, replica: str) -> None:
        self.replica = replica
        self.behaviour: dict[str, Exception | asyncio.Event] = {}
        self.tried: list[str] = []
        self.grown: list[str] = []

    async def grow(self, grown: Task, vocabulary: Any) -> ScoredTree:
        self.tried.append(grown.id)
        match self.behaviour.get(grown.id):
            case Exception() as error:
                raise error
            case asyncio.Event() as gate:
                await gate.wait()
        self.grown.append(grown.id)
        return tree_of(grown, self.replica)


class Serving:
    """A policy that is served, or not."""

    def __init__(self) -> None:
        self.is_serving = True
        self.vocabulary = None


class Answering:
    """A verifier that answers."""

    async def is_ready(self) -> bool:
        return True


@asynccontextmanager
async def harvesting(url: str, name: str, **bounds: Any) -> AsyncIterator[tuple[Harvest, StandInGrower, RunStreams]]:
    streams = RunStreams(connect(url), "r", claim_after_seconds=0.6)
    grower = StandInGrower(name)
    options = {"max_trees": 8, "max_deliveries": 3, "heartbeat_seconds": 0.15} | bounds
    harvest = Harvest(
        streams,
        grower,
        Serving(),
        Answering(),
        RolloutMetrics(),
        replica=name,
        **options,  # type: ignore[arg-type]
    )
    running = [asyncio.create_task(loop.run()) for loop in harvest.loops()]
    try:
        yield harvest, grower, streams
    finally:
        for loop in running:
            loop.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await harvest.drain(0)
        await streams.close()


async def trees(streams: RunStreams, count: int) -> list[str]:
    found: list[str] = []
    async with asyncio.timeout(15):
        while len(found) < count:
            found += [delivery.item.task.id for delivery in await streams.trees.take("learner", 100, 0.3)]
    return found


async def test_every_task_becomes_one_tree(redis_url: str) -> None:
    async with harvesting(redis_url, "a") as (_, _, streams):
        await streams.tasks.put([task(i) for i in range(40)])
        assert sorted(await trees(streams, 40)) == sorted(f"0-{i}" for i in range(40))
        assert await streams.tasks.ids() == set()


async def test_no_more_than_max_trees_are_claimed(redis_url: str) -> None:
    async with harvesting(redis_url, "a", max_trees=3) as (harvest, grower, streams):
        gates = [asyncio.Event() for _ in range(10)]
        grower.behaviour = {f"0-{i}": gate for i, gate in enumerate(gates)}
        await streams.tasks.put([task(i) for i in range(10)])
        await asyncio.sleep(0.5)
        assert harvest.trees_in_flight == 3
        assert await streams.tasks.depth() == (7, 3)
        for gate in gates:
            gate.set()
        assert len(await trees(streams, 10)) == 10


async def test_a_long_growing_claim_stays_its_growers(redis_url: str) -> None:
    async with harvesting(redis_url, "a") as (_, slow, streams), harvesting(redis_url, "b") as (_, other, _):
        slow_gate = asyncio.Event()
        slow.behaviour["0-0"] = other.behaviour["0-0"] = slow_gate
        await streams.tasks.put([task(0)])
        await asyncio.sleep(1.5)
        slow_gate.set()
        assert await trees(streams, 1) == ["0-0"]
        assert len(slow.grown) + len(other.grown) == 1


async def test_what_redis_refuses_for_a_while_ends_neither_the_harvest_nor_its_heartbeat(redis_url: str) -> None:
    async with harvesting(redis_url, "a", max_trees=2) as (harvest, grower, streams):
        gate = grower.behaviour["0-0"] = asyncio.Event()
        await streams.tasks.put([task(0)])
        while not harvest.trees_in_flight:
            await asyncio.sleep(0.02)
        redis, key = connect(redis_url), RunKeys("r").tasks
        await redis.command("RENAME", key, "aside")
        await redis.command("SET", key, "of another type: every command on the stream is refused")
        await asyncio.sleep(0.5)
        await redis.command("RENAME", "aside", key)
        await redis.close()
        await streams.tasks.put([task(1)])
        assert await trees(streams, 1) == ["0-1"]
        await asyncio.sleep(0.7)
        assert await streams.tasks.take("b", 1, 0.3) == []
        gate.set()
        assert await trees(streams, 1) == ["0-0"]


async def test_a_tree_that_finishes_within_a_long_drain_is_nobody_elses(redis_url: str) -> None:
    async with harvesting(redis_url, "a") as (harvest, grower, streams):
        gate = grower.behaviour["0-0"] = asyncio.Event()
        await streams.tasks.put([task(0)])
        while not harvest.trees_in_flight:
            await asyncio.sleep(0.02)
        draining = asyncio.create_task(harvest.drain(10))
        await asyncio.sleep(1.0)
        assert await streams.tasks.take("b", 1, 0.3) == []
        gate.set()
        assert await trees(streams, 1) == ["0-0"]
        await draining


async def test_what_a_dead_replica_held_is_grown_by_another(redis_url: str) -> None:
    dead = RunStreams(connect(redis_url), "r", claim_after_seconds=0.6)
    await dead.tasks.put([task(i) for i in range(3)])
    assert len(await dead.tasks.take("dead", 3, 1)) == 3
    await dead.close()
    async with harvesting(redis_url, "b") as (_, _, streams):
        assert sorted(await trees(streams, 3)) == ["0-0", "0-1", "0-2"]


async def test_a_drain_hands_unfinished_trees_to_others_at_once(redis_url: str) -> None:
    async with harvesting(redis_url, "a") as (harvest, grower, streams):
        grower.behaviour["0-0"] = asyncio.Event()
        await streams.tasks.put([task(0)])
        while not harvest.trees_in_flight:
            await asyncio.sleep(0.02)
        await harvest.drain(0.1)
        assert harvest.trees_in_flight == 0
        claims = await streams.tasks.take("b", 1, 0.2)
        assert [(claim.task.id, claim.deliveries) for claim in claims] == [("0-0", 1)]


async def test_a_task_that_can_never_be_grown_is_a_dead_letter_at_once(redis_url: str) -> None:
    async with harvesting(redis_url, "a") as (_, grower, streams):
        grower.behaviour["0-0"] = InvalidInput("over the context")
        await streams.tasks.put([task(0), task(1)])
        assert await trees(streams, 1) == ["0-1"]
        letters = await streams.dead_letters.take("learner", 1, 2.0)
        assert [(letter.item.task.id, letter.item.reason) for letter in letters] == [("0-0", "over the context")]


async def test_a_task_that_keeps_failing_is_a_dead_letter_after_its_deliveries(redis_url: str) -> None:
    async with harvesting(redis_url, "a") as (_, grower, streams):
        grower.behaviour["0-0"] = Unavailable("engine down")
        await streams.tasks.put([task(0)])
        (letter,) = await streams.dead_letters.take("learner", 1, 10.0)
        assert letter.item.deliveries == 3
        assert "engine down" in letter.item.reason


@pytest.mark.parametrize("error", [Overloaded("the engine is full"), RuntimeError("a defect")], ids=repr)
async def test_a_task_is_tried_again_at_once_whatever_its_failure(redis_url: str, error: Exception) -> None:
    async with harvesting(redis_url, "a", max_deliveries=1000) as (_, grower, streams):
        grower.behaviour["0-0"] = error
        await streams.tasks.put([task(0)])
        async with asyncio.timeout(0.5):  # less than a claim takes to lapse
            while len(grower.tried) < 2:
                await asyncio.sleep(0.02)
        del grower.behaviour["0-0"]
        assert await trees(streams, 1) == ["0-0"]


async def test_a_task_that_it_cannot_read_is_left_to_others_and_a_dead_letter_when_nobody_can(redis_url: str) -> None:
    async with harvesting(redis_url, "a") as (_, grower, streams):
        other_release = {"id": "0-0", "attempt": 0, "task": '{"colour": "red"}'}
        words = [word for pair in other_release.items() for word in pair]
        await streams._connection.command("XADD", RunKeys("r").tasks, "*", *words)
        await asyncio.sleep(0.3)
        assert await streams.tasks.ids() == {("0-0", 0)}
        (letter,) = await streams.dead_letters.take("learner", 1, 5.0)
        assert (letter.item.id, letter.item.attempt) == ("0-0", 0)
        assert "unreadable in 3 deliveries" in letter.item.reason
        assert await streams.tasks.ids() == set()
        assert grower.grown == []


async def test_nothing_is_taken_while_no_policy_is_served(redis_url: str) -> None:
    async with harvesting(redis_url, "a") as (harvest, _, streams):
        harvest._policy.is_serving = False  # type: ignore[misc]
        await asyncio.sleep(1.2)
        await streams.tasks.put([task(0)])
        await asyncio.sleep(0.5)
        assert await streams.tasks.depth() == (1, 0)


@pytest.mark.timeout(60)
async def test_a_redis_that_goes_away_loses_no_grown_tree(redis_process: Any) -> None:
    async with harvesting(redis_process.url, "a") as (harvest, grower, streams):
        gate = asyncio.Event()
        grower.behaviour["0-0"] = gate
        await streams.tasks.put([task(0)])
        while not harvest.trees_in_flight:
            await asyncio.sleep(0.02)
        redis_process.kill()
        gate.set()
        await asyncio.sleep(1.0)
        assert harvest.trees_in_flight == 1
        redis_process.start()
        assert await trees(streams, 1) == ["0-0"]
