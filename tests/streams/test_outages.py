"""A Redis that is late, frozen, killed or emptied: clear errors meanwhile, and afterwards the work goes on."""

import asyncio
import contextlib
import re
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest
from redis import Redis

from shared.errors import InvalidInput, Unavailable
from shared.protocol.replica import ReplicaInfo, ReplicaState
from shared.streams import Claim, CommandRefused, Connection, RunStreams, StreamsFull, connect
from shared.streams.group import StreamGroup
from shared.streams.keys import RunKeys
from tests.redis_process import RedisProcess
from tests.streams.samples import a_task, a_tree, tasks
from tests.waiting import retry_while_unavailable, wait_until_async

StartServer = Callable[[bool], RedisProcess]


@pytest.fixture
async def open_run() -> AsyncIterator[Callable[..., RunStreams]]:
    opened: list[Connection] = []

    def open_run(url: str, timeout_seconds: float = 1.0) -> RunStreams:
        opened.append(connect(url, timeout_seconds=timeout_seconds))
        return RunStreams(opened[-1], "r", claim_after_seconds=0.2)

    yield open_run
    for connection in opened:
        await connection.close()


@dataclass
class SwitchedLine:
    """An address that leads to one server, and later to another; open connections stay where they are."""

    target_port: int
    port: int = 0

    async def connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection("127.0.0.1", self.target_port)
        async with asyncio.TaskGroup() as both:
            both.create_task(self._carry(reader, there[1]))
            both.create_task(self._carry(there[0], writer))

    async def _carry(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(65536):
                target.write(data)
        target.close()


@asynccontextmanager
async def switched_line(port: int) -> AsyncIterator[SwitchedLine]:
    line = SwitchedLine(port)
    server = await asyncio.start_server(line.connect, "127.0.0.1", 0)
    line.port = server.sockets[0].getsockname()[1]
    yield line
    server.close()


async def grow_one(run: RunStreams) -> None:
    """Waits for a task, takes it and finishes it."""
    claims: list[Claim] = []
    while not claims:
        claims = await retry_while_unavailable(lambda: run.tasks.take("a", 1, 0.2), 20)
    await retry_while_unavailable(lambda: run.tasks.finish(claims[0], a_tree(claims[0].task)), 20)


async def test_a_server_that_is_not_there_yet_is_waited_for(
    tmp_path: Path, open_run: Callable[..., RunStreams]
) -> None:
    server = RedisProcess(tmp_path, aof=False)
    run = open_run(server.url)
    with pytest.raises(Unavailable, match=f"redis://127.0.0.1:{server.port}/0 does not answer.*is it running there"):
        await run.tasks.put(tasks(1))
    working = asyncio.create_task(grow_one(run))
    for _ in range(3):
        with pytest.raises(Unavailable):
            await run.tasks.depth()
    server.start()
    try:
        await retry_while_unavailable(lambda: run.tasks.put(tasks(1)), 10)
        await asyncio.wait_for(working, 10)
        assert await run.trees.ids() == {("0-0", 0)}
    finally:
        server.kill()


async def test_attempts_at_a_missing_server_are_spaced_out_and_bounded(open_run: Callable[..., RunStreams]) -> None:
    run, start, attempts = open_run("redis://127.0.0.1:1/0"), time.monotonic(), 0
    while time.monotonic() - start < 1.5:
        attempts += 1
        with pytest.raises(Unavailable):
            await run.tasks.take("a", 1, 30)
    assert 2 <= attempts <= 15


async def test_with_an_append_only_file_a_killed_server_loses_nothing(
    start_server: StartServer, open_run: Callable[..., RunStreams]
) -> None:
    server = start_server(True)
    run = open_run(server.url)
    await run.tasks.put(tasks(3))
    held, growing, _ = await run.tasks.take("a", 3, 0)
    await run.tasks.finish(held, a_tree(held.task))
    [delivery] = await run.trees.take("learner", 1, 0)
    assert await run.lease.acquire("learner", 1) == 1
    before = await run.incarnation()
    server.kill()
    with pytest.raises(Unavailable):
        await run.tasks.depth()
    server.start()
    assert await retry_while_unavailable(lambda: run.tasks.finish(growing, a_tree(growing.task)), 10)
    assert await run.tasks.depth() == (0, 1)
    assert await run.trees.redeliver("learner", await run.trees.pending()) == [delivery]
    await run.lease.renew()
    assert await run.incarnation() != before


async def test_an_emptied_server_is_noticed_and_the_work_is_fed_again(
    start_server: StartServer, open_run: Callable[..., RunStreams]
) -> None:
    server = start_server(False)
    run = open_run(server.url)
    await run.tasks.put(tasks(2))
    claims = await run.tasks.take("a", 2, 0)
    await run.lease.acquire("learner", 4)
    before = await run.incarnation()
    assert before == await run.incarnation()
    server.kill()
    server.start()
    assert await retry_while_unavailable(run.incarnation, 10) != before
    # everything is gone, and nothing about it is an error
    assert await run.tasks.ids() == set()
    assert await run.tasks.keep_alive("a", [claims[0].entry_id]) == set()
    assert not await run.tasks.finish(claims[0], a_tree(claims[0].task))
    await run.tasks.release(claims)
    assert await run.trees.pending() == []
    await run.trees.acknowledge(["1-1"])
    assert await run.replicas.live() == []
    await run.lease.renew()
    assert await open_run(server.url).lease.acquire("learner", 1) == 5
    await run.tasks.put(tasks(2))
    await grow_one(run)
    await grow_one(run)
    assert await run.trees.ids() == {("0-0", 0), ("0-1", 0)}


async def test_each_operation_makes_the_group_it_misses(
    start_server: StartServer, open_run: Callable[..., RunStreams]
) -> None:
    server = start_server(False)
    run = open_run(server.url)
    for queue in (run.tasks, run.trees, run.dead_letters):
        assert await queue.depth() == (0, 0)
    server.command("FLUSHALL")
    assert await run.tasks.take("a", 1, 0.1) == []
    server.command("FLUSHALL")
    assert await run.trees.take("a", 1, 0.1) == []
    server.command("FLUSHALL")
    assert await run.dead_letters.pending() == []
    server.command("FLUSHALL")
    assert await run.trees.redeliver("a", ["1-1"]) == []


async def test_a_blocking_read_fails_when_the_server_dies(
    start_server: StartServer, open_run: Callable[..., RunStreams]
) -> None:
    server = start_server(False)
    run = open_run(server.url)
    reading = asyncio.create_task(run.trees.take("learner", 1, 30))
    await wait_until_async(server.has_blocked_client)
    server.kill()
    with pytest.raises(Unavailable):
        await asyncio.wait_for(reading, 5)


async def test_a_frozen_server_costs_no_more_than_the_deadline(
    start_server: StartServer, open_run: Callable[..., RunStreams]
) -> None:
    server = start_server(False)
    run = open_run(server.url, 0.3)
    await run.tasks.put(tasks(1))
    server.freeze()
    for operation in (run.tasks.depth, lambda: run.tasks.take("a", 1, 0.2), run.incarnation):
        start = time.monotonic()
        with pytest.raises(Unavailable):
            await operation()
        assert time.monotonic() - start < 10
    server.thaw()
    # no later command gets a late reply
    for index in range(20):
        await retry_while_unavailable(lambda: run.status_keys.announce_learner(f"http://{index}"), 5)  # noqa: B023
        assert await run.status_keys.learner_url() == f"http://{index}"


async def test_a_cancelled_reader_leaves_the_connection_usable(
    start_server: StartServer, open_run: Callable[..., RunStreams]
) -> None:
    server = start_server(False)
    run = open_run(server.url)
    for index in range(20):
        reading = asyncio.create_task(run.tasks.take("a", 1, 30))
        await wait_until_async(server.has_blocked_client)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await run.status_keys.announce_learner(f"http://{index}")
        assert await run.status_keys.learner_url() == f"http://{index}"


async def test_more_commands_at_once_than_connections_wait_their_turn(
    start_server: StartServer, open_run: Callable[..., RunStreams]
) -> None:
    run = open_run(start_server(False).url, 60.0)  # all 300 wait at once, on a busy machine too
    await run.tasks.put([a_task(index) for index in range(300)])
    claims = await run.tasks.take("a", 300, 0)
    assert all(await asyncio.gather(*(run.tasks.finish(claim, a_tree(claim.task)) for claim in claims)))
    assert await run.trees.depth() == (300, 0)


async def test_a_full_server_is_unavailable_and_recovers(
    start_server: StartServer, open_run: Callable[..., RunStreams]
) -> None:
    server = start_server(False)
    run = open_run(server.url)
    server.command("CONFIG", "SET", "maxmemory", "1")
    with pytest.raises(StreamsFull, match="at its maxmemory"):
        await run.tasks.put(tasks(1))
    server.command("CONFIG", "SET", "maxmemory", "0")
    await run.tasks.put(tasks(1))


async def test_on_a_full_server_a_learner_can_come_take_what_is_there_and_make_room(
    start_server: StartServer, open_run: Callable[..., RunStreams]
) -> None:
    server = start_server(False)
    run = open_run(server.url)
    await run.tasks.put(tasks(2))
    good, bad = await run.tasks.take("a", 2, 0)
    await run.trees.depth()  # makes the group
    await run.dead_letters.depth()
    server.command("CONFIG", "SET", "maxmemory", "1")
    assert await run.tasks.finish(good, a_tree(good.task))
    assert await run.tasks.give_up(bad, "no", "a")
    assert await run.lease.acquire("learner", 1) == 1
    await run.lease.renew()
    for queue in (run.trees, run.dead_letters):
        [delivery] = await queue.take("learner", 1, 0)
        await queue.acknowledge([delivery.entry_id])
        assert await queue.depth() == (0, 0)


async def test_a_wrong_password_is_named_without_showing_it(
    start_server: StartServer, open_run: Callable[..., RunStreams]
) -> None:
    server = start_server(False)
    server.command("CONFIG", "SET", "requirepass", "right-secret")
    for url in (server.url, server.url.replace("//", "//:wrong-secret@")):
        run = open_run(url)
        for error, work in ((Unavailable, run.tasks.depth), (InvalidInput, run.vet)):
            with pytest.raises(error, match="refuses the password") as caught:
                await work()
            assert "secret" not in str(caught.value)
        with pytest.raises(Unavailable):  # a long command gets another answer
            await run.tasks.take("a", 1, 0.0)
    assert await open_run(server.url.replace("//", "//:right-secret@")).tasks.depth() == (0, 0)


async def test_a_key_of_another_program_is_named(
    start_server: StartServer, open_run: Callable[..., RunStreams]
) -> None:
    server, keys = start_server(False), RunKeys("r")
    run = open_run(server.url)
    works: dict[str, Callable[[], Awaitable[object]]] = {
        keys.tasks: lambda: run.tasks.put(tasks(1)),
        keys.trees: lambda: run.trees.take("learner", 1, 0.1),
        keys.dead_letters: run.dead_letters.pending,
        keys.lease: lambda: run.lease.acquire("learner", 1),
        keys.replicas: run.replicas.live,
        keys.status: run.status_keys.read,
        keys.incarnation: run.incarnation,
    }
    for key, work in works.items():
        server.command("GEOADD", key, "1", "1", "theirs")
        with pytest.raises(CommandRefused, match=f"holds something else under .*{re.escape(key)}.*delete the key"):
            await work()


@pytest.mark.parametrize("value", [b"\xff\xfe", b"\xff 1 x", b"nonsense", b""])
async def test_what_another_program_wrote_under_our_names_stops_nothing(
    value: bytes, start_server: StartServer, open_run: Callable[..., RunStreams]
) -> None:
    server, keys = start_server(False), RunKeys("r")
    run = open_run(server.url)
    for key in (keys.lease, keys.generation, keys.learner, keys.incarnation, keys.replica("a"), keys.status):
        server.command("SET", key, value)
    server.command("SADD", keys.replicas, value, "a")
    assert await run.lease.acquire("learner", 1) >= 1
    await run.lease.renew()
    assert await run.incarnation()
    assert isinstance(await run.status_keys.learner_url(), str)
    assert await run.replicas.live() == []
    with pytest.raises(InvalidInput, match="another release"):
        await run.status_keys.read()
    await run.forget()


@pytest.mark.parametrize(
    ("setting", "value"), [("min-replicas-to-write", "1"), ("maxclients", "1"), ("maxmemory", "1"), ("save", "1 1")]
)
async def test_a_server_that_takes_no_writes_is_waited_for(
    setting: str, value: str, start_server: StartServer, open_run: Callable[..., RunStreams], tmp_path: Path
) -> None:
    server = start_server(False)
    run = open_run(server.url)
    [before] = server.command("CONFIG", "GET", setting).values()  # type: ignore[attr-defined]
    if setting == "save":  # its snapshots fail, as where the disk is full
        (tmp_path / "dump.rdb" / "in the way").mkdir(parents=True)
        server.command("SET", "x", "1")
        server.command("BGSAVE")
        await wait_until_async(lambda: server.command("INFO", "persistence")["rdb_last_bgsave_status"] == "err")  # type: ignore[index]
    with Redis.from_url(server.url) as first:
        first.ping()
        first.config_set(setting, value)
        with pytest.raises(Unavailable):
            await run.tasks.put(tasks(1))
        first.config_set(setting, before)
    await retry_while_unavailable(lambda: run.tasks.put(tasks(1)), 10)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost:6379",
        "http://localhost",
        "redis://localhost:port",
        "redis://user:s3cret",
        "redis://:s3cret@[::1",
        "redis://:12/abcs3cret=@localhost:6380/0",
        "redis://:12?abcs3cret@localhost:6380/0",
        "redis://:12#abcs3cret@localhost:6380/0",
        "rediss://me:s3cret/=@localhost/0",
        "redis://localhost:6379/s3cret",
        "redis://localhost:6379/0?db=s3cret",
    ],
)
def test_a_url_that_cannot_be_right_is_refused_without_showing_its_password(url: str) -> None:
    with pytest.raises(InvalidInput, match=r"redis://host:port/0.*percent-encoded") as caught:
        connect(url)
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))


async def test_a_password_of_any_letters_works_percent_encoded(
    start_server: StartServer, open_run: Callable[..., RunStreams]
) -> None:
    server, password = start_server(False), "1/a?b#c@d:e[f%]é"
    server.command("CONFIG", "SET", "requirepass", password)
    url = server.url.replace("//", f"//:{quote(password, safe='')}@")
    assert await open_run(url).tasks.depth() == (0, 0)


@pytest.mark.parametrize("serves_stale_data", ["yes", "no"])
async def test_after_a_failover_no_connection_stays_with_the_old_master(
    serves_stale_data: str, start_server: StartServer, open_run: Callable[..., RunStreams], tmp_path: Path
) -> None:
    old, new = start_server(False), start_server(False)
    async with switched_line(old.port) as line:
        run = open_run(f"redis://127.0.0.1:{line.port}/0")
        await asyncio.gather(*(run.tasks.depth() for _ in range(10)))  # several connections
        reading = asyncio.create_task(run.trees.take("learner", 1, 30))
        await wait_until_async(old.has_blocked_client)
        line.target_port = new.port
        old.command("CONFIG", "SET", "replica-serve-stale-data", serves_stale_data)
        old.command("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(Unavailable):
            await asyncio.wait_for(reading, 10)
        await retry_while_unavailable(lambda: run.tasks.put(tasks(1)), 10)
        assert await asyncio.gather(*(run.tasks.depth() for _ in range(10))) == [(1, 0)] * 10


async def test_what_comes_after_a_stream_was_deleted_under_its_reader_arrives(
    start_server: StartServer, open_run: Callable[..., RunStreams]
) -> None:
    server = start_server(False)
    run = open_run(server.url)
    for _ in range(3):
        reading = asyncio.create_task(retry_while_unavailable(lambda: run.trees.take("learner", 1, 30), 20))
        await wait_until_async(server.has_blocked_client)
        server.command("DEL", RunKeys("r").trees)
        await run.tasks.put(tasks(1))
        await grow_one(run)
        [delivery] = await reading
        await run.trees.acknowledge([delivery.entry_id])


async def test_a_group_that_is_gone_again_at_once_is_waited_for(connection: Connection) -> None:
    group = StreamGroup(connection, "a-stream", "group")
    with pytest.raises(Unavailable, match=r"deleted again and again.*noeviction"):
        await group.script("return redis.error_reply('NOGROUP No such key')", [], [])


async def test_a_server_that_evicts_is_named(start_server: StartServer, open_run: Callable[..., RunStreams]) -> None:
    server = start_server(False)
    assert await open_run(server.url).vet() == ""
    server.command("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    assert "maxmemory-policy allkeys-lru" in await open_run(server.url).vet()


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        ("-OOM command not allowed when used memory > 'maxmemory'.", StreamsFull),
        ("-READONLY You can't write against a read only replica.", Unavailable),
        ("-MISCONF Redis is configured to save RDB snapshots", Unavailable),
        ("-MASTERDOWN Link with MASTER is down", Unavailable),
    ],
)
async def test_an_error_that_a_script_of_redis_6_wraps_means_the_same(
    error: str, raised: type[Unavailable], connection: Connection
) -> None:
    wrapped = f"ERR Error running script (call to f_1): @user_script:2: @user_script: 2: {error} "
    with pytest.raises(raised):
        await connection.script("return redis.error_reply(ARGV[1])", [], [wrapped])


@pytest.mark.parametrize("reply", ["MOVED 866 10.0.0.7:6379", "ASK 866 10.0.0.7:6379", "CROSSSLOT Keys do not hash"])
async def test_a_node_of_a_cluster_is_refused_in_words(reply: str, connection: Connection) -> None:
    with pytest.raises(CommandRefused, match=r"one node of a Redis Cluster .*a single server"):
        await connection.script("return redis.error_reply(ARGV[1])", [], [reply])


@pytest.mark.slow
async def test_work_goes_on_after_twenty_seconds_without_redis(
    start_server: StartServer, open_run: Callable[..., RunStreams]
) -> None:
    server = start_server(True)
    run = open_run(server.url)
    info = ReplicaInfo(name="a", url="http://a", state=ReplicaState.SERVING, version=None)
    await run.tasks.put(tasks(40))
    growing = asyncio.gather(*(retry_while_unavailable(lambda: grow_one(run), 60) for _ in range(40)))
    await wait_until_async(run.trees.ids)
    server.kill()
    await asyncio.sleep(20)  # the outage
    server.start()
    start = time.monotonic()
    await retry_while_unavailable(lambda: run.replicas.announce(info, 60), 10)
    assert time.monotonic() - start < 3
    await asyncio.wait_for(growing, 30)
    assert await run.trees.ids() == {(task.id, 0) for task in tasks(40)}
    assert await run.tasks.depth() == (0, 0)
