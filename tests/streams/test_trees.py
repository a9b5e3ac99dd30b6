"""What comes back to the learner stays until it is acknowledged."""

from shared.protocol.task import DeadLetter
from shared.protocol.tree import ScoredTree
from shared.streams import Connection, RunStreams, Unreadable
from shared.streams.keys import RunKeys
from tests.streams.samples import a_tree, tasks


async def grow(run: RunStreams, count: int) -> None:
    await run.tasks.put(tasks(count))
    for claim in await run.tasks.take("a", count, 0):
        await run.tasks.finish(claim, a_tree(claim.task))


async def give_up(run: RunStreams, count: int) -> None:
    await run.tasks.put(tasks(count))
    for claim in await run.tasks.take("a", count, 0):
        await run.tasks.give_up(claim, f"reason {claim.task.id}", "a")


async def test_a_tree_is_delivered_once_until_the_learner_restarts(run: RunStreams) -> None:
    await grow(run, 3)
    first = await run.trees.take("learner-1", 2, 0)
    rest = await run.trees.take("learner-1", 5, 0)
    assert [delivery.item.task.id for delivery in [*first, *rest]] == ["0-0", "0-1", "0-2"]
    assert await run.trees.take("learner-1", 5, 0) == []
    assert await run.trees.redeliver("learner-2", await run.trees.pending()) == [*first, *rest]
    assert await run.trees.depth() == (0, 3)


async def test_acknowledged_trees_leave_the_stream(run: RunStreams, connection: Connection) -> None:
    await grow(run, 3)
    taken = await run.trees.take("learner", 5, 0)
    await run.trees.acknowledge([taken[1].entry_id])
    await run.trees.acknowledge([])
    assert await run.trees.pending() == [taken[0].entry_id, taken[2].entry_id]
    assert await run.trees.redeliver("learner", [one.entry_id for one in taken]) == [taken[0], taken[2]]
    assert await run.trees.ids() == {("0-0", 0), ("0-2", 0)}
    await run.trees.acknowledge([delivery.entry_id for delivery in taken])
    assert await connection.command("XLEN", RunKeys(run.run).trees) == 0


async def test_what_is_pending_keeps_the_order_of_the_stream_over_many_pages(run: RunStreams) -> None:
    await grow(run, 150)
    taken = await run.trees.take("a", 90, 0) + await run.trees.take("b", 90, 0)
    pending = await run.trees.pending()
    assert pending == [delivery.entry_id for delivery in taken]
    assert await run.trees.redeliver("c", pending[88:92]) == taken[88:92]


async def test_an_unreadable_tree_is_delivered_as_such_with_its_feeding(
    run: RunStreams, connection: Connection
) -> None:
    stream = RunKeys(run.run).trees
    await connection.command("XADD", stream, "*", "id", "0-9", "attempt", "1", "tree", b"\xc1garbage")
    await connection.command("XADD", stream, "*", "id", "0-8", "attempt", "9" * 5000)
    await grow(run, 1)
    broken, stray, good = [delivery.item for delivery in await run.trees.take("learner", 5, 0)]
    assert isinstance(good, ScoredTree)
    assert isinstance(broken, Unreadable)
    assert (broken.id, broken.attempt) == ("0-9", 1)
    assert "not a scored tree" in broken.reason
    assert (stray.id, stray.attempt) == ("0-8", -1)
    assert await run.trees.ids() == {("0-9", 1), ("0-8", -1), ("0-0", 0)}
    assert await run.trees.depth() == (0, 3)


async def test_nothing_pending_is_redelivered_as_nothing(run: RunStreams) -> None:
    assert await run.trees.pending() == []
    assert await run.trees.redeliver("learner", []) == []
    assert await run.trees.depth() == (0, 0)
    assert await run.trees.ids() == set()


async def test_dead_letters_are_delivered_redelivered_and_acknowledged(run: RunStreams) -> None:
    await give_up(run, 3)
    taken = await run.dead_letters.take("learner-1", 5, 0)
    assert await run.dead_letters.redeliver("learner-2", await run.dead_letters.pending()) == taken
    await run.dead_letters.acknowledge([delivery.entry_id for delivery in taken[:2]])
    assert await run.dead_letters.ids() == {("0-2", 0)}
    assert await run.dead_letters.depth() == (0, 1)


async def test_people_can_read_dead_letters_that_were_counted(run: RunStreams, connection: Connection) -> None:
    await give_up(run, 3)
    taken = await run.dead_letters.take("learner", 5, 0)
    await run.dead_letters.acknowledge([delivery.entry_id for delivery in taken[:2]])
    texts = await connection.command("LRANGE", RunKeys(run.run).handled_dead_letters, 0, -1)
    assert [DeadLetter.model_validate_json(text).reason for text in texts] == ["reason 0-1", "reason 0-0"]


async def test_what_is_kept_for_people_is_bounded(run: RunStreams, connection: Connection) -> None:
    await give_up(run, 1)
    [delivery] = await run.dead_letters.take("learner", 1, 0)
    keys = RunKeys(run.run)
    for _ in range(3):
        await connection.command("LPUSH", keys.handled_dead_letters, *["x"] * 600)
    await run.dead_letters.acknowledge([delivery.entry_id])
    assert await connection.command("LLEN", keys.handled_dead_letters) == 1000
