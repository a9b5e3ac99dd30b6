"""The harvest on a real Redis: claims are kept, finished, released or given up, and none is lost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from services.rollout.harvest import Harvest
from services.rollout.metrics import RolloutMetrics
from shared.errors import InvalidInput, Overloaded, Unavailable
from shared.protocol.replica import ReplicaInfo, ReplicaState
from shared.protocol.task import Growth, Task
from shared.protocol.tree import ScoredTree, TreeUsage
from shared.runtime.loops import Periodic
from shared.streams import Claim, RunStreams, connect
from shared.streams.keys import RunKeys
from shared.tree.diagnostics import TreeFigures
from shared.tree.draw import Draw, Finish, VersionSpan, WeightVersion
from shared.tree.samplers import IndependentSampler
from tests.waiting import wait_until_async

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
        self.num_growing = 0
        self.most_growing = 0

    async def figures(self, tree: ScoredTree) -> TreeFigures:
        return tree.figures()

    async def grow(self, grown: Task, vocabulary: Any) -> ScoredTree:
        self.tried.append(grown.id)
        self.num_growing += 1
        self.most_growing = max(self.most_growing, self.num_growing)
        try:
            match self.behaviour.get(grown.id):
                case Exception() as error:
                    raise error
                case asyncio.Event() as gate:
                    await gate.wait()
        finally:
            self.num_growing -= 1
        self.grown.append(grown.id)
        return tree_of(grown, self.replica)


class StandInPolicy:
    """A policy that is served, or not; counts how often it was asked."""

    vocabulary = None
    fault = ""

    def __init__(self, is_served: bool) -> None:
        self.is_served = is_served
        self.num_asked = 0

    @property
    def is_serving(self) -> bool:
        self.num_asked += 1
        return self.is_served


class ReadyRewards:
    """A verifier that answers."""

    async def is_ready(self) -> bool:
        return True


@dataclass
class Replica:
    """One replica's harvest, its stand-ins and its streams."""

    harvest: Harvest
    grower: StandInGrower
    policy: StandInPolicy
    streams: RunStreams
    loops: tuple[Periodic, ...]

    async def starts(self, num_trees: int = 1) -> None:
        """Waits until so many trees grow."""
        await wait_until_async(lambda: self.grower.num_growing == num_trees)


@asynccontextmanager
async def harvesting(
    url: str, name: str, *, is_served: bool = True, claim_after_seconds: float = 0.6, **bounds: Any
) -> AsyncIterator[Replica]:
    streams = RunStreams(connect(url), "r", claim_after_seconds=claim_after_seconds)
    grower, policy = StandInGrower(name), StandInPolicy(is_served)
    options = {"max_trees": 8, "max_deliveries": 3, "heartbeat_seconds": 0.15} | bounds
    harvest = Harvest(
        streams,
        grower,
        policy,
        ReadyRewards(),
        RolloutMetrics(),
        replica=name,
        **options,  # type: ignore[arg-type]
    )
    loops = harvest.loops()
    running = [asyncio.create_task(loop.run()) for loop in loops]
    try:
        yield Replica(harvest, grower, policy, streams, loops)
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
    async with harvesting(redis_url, "a") as a:
        await a.streams.tasks.put([task(i) for i in range(40)])
        assert sorted(await trees(a.streams, 40)) == sorted(f"0-{i}" for i in range(40))
        assert await a.streams.tasks.ids() == set()


async def test_no_more_than_max_trees_are_claimed(redis_url: str) -> None:
    async with harvesting(redis_url, "a", max_trees=3) as a:
        gates = [asyncio.Event() for _ in range(10)]
        a.grower.behaviour = {f"0-{i}": gate for i, gate in enumerate(gates)}
        await a.streams.tasks.put([task(i) for i in range(10)])
        await a.starts(3)
        assert a.harvest.trees_in_flight == 3
        assert await a.streams.tasks.depth() == (7, 3)
        for number, gate in enumerate(gates, 1):
            gate.set()
            await a.starts(min(3, 10 - number))
        assert len(await trees(a.streams, 10)) == 10
        assert a.grower.most_growing == 3


async def test_a_long_growing_claim_stays_its_growers(redis_url: str) -> None:
    async with harvesting(redis_url, "a") as a, harvesting(redis_url, "b") as b:
        gate = asyncio.Event()
        a.grower.behaviour["0-0"] = b.grower.behaviour["0-0"] = gate
        await a.streams.tasks.put([task(0)])
        await wait_until_async(lambda: a.grower.tried or b.grower.tried)
        assert await a.streams.tasks.take("c", 1, 1.5) == []
        gate.set()
        assert await trees(a.streams, 1) == ["0-0"]
        assert len(a.grower.tried) + len(b.grower.tried) == 1


async def test_what_redis_refuses_for_a_while_ends_neither_the_harvest_nor_its_heartbeat(redis_url: str) -> None:
    async with harvesting(redis_url, "a", max_trees=2) as a:
        gate = a.grower.behaviour["0-0"] = asyncio.Event()
        await a.streams.tasks.put([task(0)])
        await a.starts()
        redis, key = connect(redis_url), RunKeys("r").tasks
        await redis.command("RENAME", key, "aside")
        await redis.command("SET", key, "of another type: every command on the stream is refused")
        await wait_until_async(lambda: all(loop.num_failures_in_row for loop in a.loops))
        await redis.command("RENAME", "aside", key)
        await redis.close()
        await a.streams.tasks.put([task(1)])
        assert await trees(a.streams, 1) == ["0-1"]
        assert await a.streams.tasks.take("b", 1, 1.0) == []
        gate.set()
        assert await trees(a.streams, 1) == ["0-0"]


async def test_a_tree_that_finishes_within_a_long_drain_is_nobody_elses(redis_url: str) -> None:
    async with harvesting(redis_url, "a") as a:
        gate = a.grower.behaviour["0-0"] = asyncio.Event()
        await a.streams.tasks.put([task(0)])
        await a.starts()
        draining = asyncio.create_task(a.harvest.drain(10))
        assert await a.streams.tasks.take("b", 1, 1.3) == []
        gate.set()
        assert await trees(a.streams, 1) == ["0-0"]
        await draining


async def test_what_a_dead_replica_held_is_grown_by_another(redis_url: str) -> None:
    dead = RunStreams(connect(redis_url), "r", claim_after_seconds=0.6)
    await dead.tasks.put([task(i) for i in range(3)])
    assert len(await dead.tasks.take("dead", 3, 1)) == 3
    await dead.close()
    async with harvesting(redis_url, "b") as b:
        assert sorted(await trees(b.streams, 3)) == ["0-0", "0-1", "0-2"]


async def test_a_drain_hands_unfinished_trees_to_others_at_once(redis_url: str) -> None:
    async with harvesting(redis_url, "a", claim_after_seconds=3600.0) as a:
        a.grower.behaviour["0-0"] = asyncio.Event()
        await a.streams.tasks.put([task(0)])
        await a.starts()
        await a.harvest.drain(0.1)
        assert a.harvest.trees_in_flight == 0
        claims = await wait_until_async(lambda: a.streams.tasks.take("b", 1, 0.05))
        assert [(claim.task.id, claim.deliveries) for claim in claims] == [("0-0", 1)]


async def test_a_replica_that_drains_keeps_nothing_that_it_claims_meanwhile(redis_url: str) -> None:
    async with harvesting(redis_url, "a", claim_after_seconds=3600.0) as a:
        await wait_until_async(lambda: a.policy.num_asked)  # it waits for tasks now
        await a.harvest.drain(0.0)
        await a.streams.tasks.put([task(0)])
        claims = await wait_until_async(lambda: a.streams.tasks.take("b", 1, 0.05))
        assert [(claim.task.id, claim.deliveries) for claim in claims] == [("0-0", 1)]
        assert a.grower.tried == []


async def test_a_task_that_can_never_be_grown_is_a_dead_letter_at_once(redis_url: str) -> None:
    async with harvesting(redis_url, "a") as a:
        a.grower.behaviour["0-0"] = InvalidInput("over the context")
        await a.streams.tasks.put([task(0), task(1)])
        assert await trees(a.streams, 1) == ["0-1"]
        dead = await a.streams.dead_letters.take("learner", 1, 2.0)
        assert [(letter.item.task.id, letter.item.reason) for letter in dead] == [("0-0", "over the context")]


async def test_a_task_that_keeps_failing_is_a_dead_letter_after_its_deliveries(redis_url: str) -> None:
    async with harvesting(redis_url, "a") as a:
        a.grower.behaviour["0-0"] = Unavailable("engine down")
        await a.streams.tasks.put([task(0)])
        (letter,) = await a.streams.dead_letters.take("learner", 1, 10.0)
        assert letter.item.deliveries == 3
        assert "engine down" in letter.item.reason


@pytest.mark.parametrize("error", [Overloaded("the engine is full"), RuntimeError("a defect")], ids=repr)
async def test_a_task_is_tried_again_at_once_whatever_its_failure(redis_url: str, error: Exception) -> None:
    async with harvesting(redis_url, "a", max_deliveries=1000, claim_after_seconds=3600.0) as a:
        a.grower.behaviour["0-0"] = error
        await a.streams.tasks.put([task(0)])
        await wait_until_async(lambda: len(a.grower.tried) >= 2)
        del a.grower.behaviour["0-0"]
        assert await trees(a.streams, 1) == ["0-0"]


async def test_a_task_that_it_cannot_read_is_left_to_others_and_a_dead_letter_when_nobody_can(redis_url: str) -> None:
    async with harvesting(redis_url, "a") as a:
        other_release = {"id": "0-0", "attempt": 0, "task": '{"colour": "red"}'}
        words = [word for pair in other_release.items() for word in pair]
        redis = connect(redis_url)
        await redis.command("XADD", RunKeys("r").tasks, "*", *words)
        await redis.close()

        async def is_taken() -> bool:
            return await a.streams.tasks.depth() == (0, 1)

        await wait_until_async(is_taken)
        assert await a.streams.tasks.ids() == {("0-0", 0)}
        (letter,) = await a.streams.dead_letters.take("learner", 1, 30.0)
        assert (letter.item.id, letter.item.attempt) == ("0-0", 0)
        assert "unreadable in 3 deliveries" in letter.item.reason
        assert await a.streams.tasks.ids() == set()
        assert a.grower.grown == []


async def test_a_task_of_other_code_is_left_to_a_replica_that_has_it(redis_url: str) -> None:
    async with harvesting(redis_url, "a") as a:
        other = ReplicaInfo(name="b", url="http://b", state=ReplicaState.SERVING, version=None)
        await a.streams.replicas.announce(other, 60.0)
        await a.streams.tasks.put([task(0).model_copy(update={"own_code": {"my_pkg.mine": "0123"}})])
        await wait_until_async(lambda: a.harvest.why_unread != "")
        assert "my_pkg.mine is here another version (none)" in a.harvest.why_unread
        claims: list[Claim] = []

        async def is_taken_by_b() -> bool:
            claims.extend(await a.streams.tasks.take("b", 1, 0.1))
            return bool(claims)

        await wait_until_async(is_taken_by_b)
        assert claims[0].deliveries == 1 or claims[0].deliveries == 2, "what it could not read is no failed delivery"
        assert a.grower.tried == []


async def test_a_task_of_other_code_waits_for_who_has_it_and_is_started_again(redis_url: str) -> None:
    async with harvesting(redis_url, "a", max_deliveries=1, heartbeat_seconds=60.0) as a:
        await a.streams.tasks.put([task(0).model_copy(update={"own_code": {"my_pkg.mine": "0123"}})])
        await wait_until_async(lambda: a.harvest.why_unread)
        (claim,) = await wait_until_async(lambda: a.streams.tasks.take("b", 1, 0.05))
        assert claim.deliveries == 1
        assert await a.streams.dead_letters.ids() == set()
        assert a.grower.tried == []


async def test_a_task_of_other_code_is_soon_a_dead_letter_where_nobody_has_it(redis_url: str) -> None:
    async with harvesting(redis_url, "a", claim_after_seconds=3600.0) as a, harvesting(redis_url, "b") as b:
        mute = ReplicaInfo(name="b", url="http://b", state=ReplicaState.SERVING, version=None, reads_tasks=False)
        await b.streams.replicas.announce(mute, 60.0)
        await a.streams.tasks.put([task(0).model_copy(update={"own_code": {"my_pkg.mine": "0123"}})])
        (letter,) = await a.streams.dead_letters.take("learner", 1, 30.0)
        assert "unreadable in 3 deliveries: my_pkg.mine is here another version" in letter.item.reason
        assert a.grower.tried == b.grower.tried == []


async def test_nothing_is_taken_while_no_policy_is_served(redis_url: str) -> None:
    async with harvesting(redis_url, "a", is_served=False) as a:
        await a.streams.tasks.put([task(0)])
        await wait_until_async(lambda: a.policy.num_asked >= 3)
        assert await a.streams.tasks.depth() == (1, 0)
        a.policy.is_served = True
        assert await trees(a.streams, 1) == ["0-0"]


@pytest.mark.timeout(60)
async def test_a_redis_that_goes_away_loses_no_grown_tree(redis_process: Any) -> None:
    async with harvesting(redis_process.url, "a") as a:
        gate = a.grower.behaviour["0-0"] = asyncio.Event()
        await a.streams.tasks.put([task(0)])
        await a.starts()
        redis_process.kill()
        gate.set()
        await wait_until_async(lambda: a.grower.grown and all(loop.num_failures_in_row for loop in a.loops))
        assert a.harvest.trees_in_flight == 1
        redis_process.start()
        assert await trees(a.streams, 1) == ["0-0"]
