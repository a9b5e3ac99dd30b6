"""Whatever a learner answers, the old weights go on serving bit for bit, and nothing of it is left behind."""

import asyncio
import json
import resource
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import zstandard

from shared.errors import IbtpoError, InvalidInput, Unavailable
from shared.protocol.weights import Encoding, Manifest, Transfer
from shared.tree.draw import WeightVersion
from shared.weights import Snapshot
from shared.weights.framing import MAGIC, frame, full_transfer
from shared.weights.manifest import content_hash, places_of
from tests.rollout.fetching.parts import FetchingReplica, PublishingLearner, open_descriptors
from tests.waiting import wait_until_async
from tests.weights.bundles import contents

_PIECE = {"num_bytes": 1, "xxh3": "0" * 32}


@asynccontextmanager
async def answering(answer: bytes, endless: bytes = b"") -> AsyncIterator[str]:
    """A server that answers everybody so, and goes on with `endless` until they leave."""

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
            while endless:
                writer.write(endless)
                await writer.drain()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(respond, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def http(body: bytes, version: str = "1.1-beef", length: int | None = None, **headers: str) -> bytes:
    fields = {
        "Content-Type": "application/octet-stream",
        "X-Weight-Version": version,
        "ETag": '"e"',
        "Content-Length": str(len(body) if length is None else length),
        "Connection": "close",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    return b"HTTP/1.1 200 OK\r\n" + "".join(f"{k}: {v}\r\n" for k, v in fields.items()).encode() + b"\r\n" + body


def framed(head: bytes, body: bytes = b"", length: int | None = None) -> bytes:
    return MAGIC + (len(head) if length is None else length).to_bytes(8, "little") + head + body


class Liar:
    """Makes answers out of the transfers that an honest learner would send."""

    def __init__(self, learner: PublishingLearner) -> None:
        self._learner = learner
        self.first, self.newest = learner.publish(), learner.publish()

    def described(self, **changes: Any) -> dict[str, Any]:
        transfer = full_transfer(self.newest.manifest).model_dump(mode="json")
        return {**transfer, **{k: v for k, v in changes.items() if k != "manifest"}} | {
            "manifest": {**transfer["manifest"], **changes.get("manifest", {})}
        }

    def full(self, **changes: Any) -> bytes:
        return framed(json.dumps(self.described(**changes)).encode(), self.body)

    @property
    def body(self) -> bytes:
        files = self.newest.manifest.files
        return b"".join((self.newest.directory / file.name).read_bytes() for file in files)

    def of_files(self, files: list[dict[str, Any]], num_bytes: int, body: bytes = b"") -> bytes:
        """A description of these files whose checksums are right."""
        manifest = self.newest.manifest.model_dump(mode="json")
        with suppress(ValueError):  # where it is none of ours, it is refused before that is compared
            listed = Manifest.model_validate({**manifest, "files": files}).files
            manifest["content_hash"] = content_hash(listed)
        head = {"manifest": {**manifest, "files": files}, "encoding": "full", "num_bytes": num_bytes}
        return framed(json.dumps(head).encode(), body)

    def delta(self, *blocks: bytes, num_bytes: int | None = None) -> bytes:
        body = b"".join(blocks)
        base, manifest = self.first.manifest.base, self.newest.manifest
        length = len(body) if num_bytes is None else num_bytes
        return (
            frame(Transfer.model_construct(manifest=manifest, encoding=Encoding.DELTA, base=base, num_bytes=length))
            + body
        )


def block(payload: bytes, *, piece: int = 1, coding: int = 1, begin: int = 0, num_values: int = 1) -> bytes:
    return struct.pack("<IBQII", piece, coding, begin, num_values, len(payload)) + payload


def _bomb(num_bytes: int) -> bytes:
    return zstandard.ZstdCompressor(1).compress(bytes(num_bytes))


HOSTILE: dict[str, Callable[[Liar], bytes]] = {
    "html": lambda _: http(b"<html>hello</html>", Content_Type="text/html"),
    "bytes that are none of ours": lambda _: http(b"<html>" * 100),
    "nothing": lambda _: http(b""),
    "no HTTP": lambda _: b"\x16\x03\x01" * 100,
    "a redirect": lambda _: b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
    "an error with a book in it": lambda _: (
        b"HTTP/1.1 500 Oh\r\nContent-Type: application/problem+json\r\nConnection: close\r\n\r\n"
        + json.dumps({"detail": "a\nb" * 10_000}).encode()
    ),
    "no version": lambda liar: http(liar.full(), version=""),
    "a version beyond all counters": lambda liar: http(liar.full(), version="1." + "9" * 40),
    "an older version": lambda liar: http(liar.full(), version="0.9-beef"),
    "another version than it says": lambda liar: http(liar.full(), version="1.2-beef"),
    "another run": lambda liar: http(liar.full(manifest={"run": "x" * 100_000})),
    "a hash that is not its own": lambda liar: http(liar.full(manifest={"content_hash": "0" * 64})),
    "a length that is too short": lambda liar: http(liar.full()[:-50]),
    "bytes after the end": lambda liar: http(liar.full() + b"x"),
    "a body of another length": lambda liar: http(liar.full(num_bytes=5)),
    "a description that is nested": lambda _: http(framed(b"[" * 100_000)),
    "a description with errors": lambda _: http(
        framed(json.dumps({"manifest": {"files": [{"name": "a", "pieces": [1] * 2_000}]}}).encode())
    ),
    "a description of 2^64 bytes": lambda _: http(framed(b"{}", length=(1 << 64) - 1)),
    "one file twice": lambda liar: http(
        liar.of_files([{"name": name, "pieces": [_PIECE]} for name in ("a", "A")], 2, b"ab")
    ),
    "a file elsewhere": lambda liar: http(liar.of_files([{"name": "../a", "pieces": [_PIECE]}], 1, b"a")),
    "an empty piece of the wrong hash": lambda liar: http(
        liar.of_files([{"name": "a", "pieces": [{**_PIECE, "num_bytes": 0}, _PIECE]}], 1, b"a")
    ),
    "very many empty pieces": lambda liar: http(
        liar.of_files([{"name": "a", "pieces": [{**_PIECE, "num_bytes": 0}] * 4_000}], 0)
    ),
    "65,537 pieces": lambda liar: http(liar.of_files([{"name": "a", "pieces": [_PIECE] * 65_537}], 65_537)),
    "257 files": lambda liar: http(liar.of_files([{"name": f"a{i}", "pieces": [_PIECE]} for i in range(257)], 257)),
    "exabytes": lambda liar: http(
        liar.of_files([{"name": "a", "pieces": [{**_PIECE, "num_bytes": (1 << 53) - 1}] * 9}], 9 * ((1 << 53) - 1))
    ),
    "a petabyte": lambda liar: http(
        liar.of_files([{"name": "a", "pieces": [{**_PIECE, "num_bytes": 1 << 50}]}], 1 << 50), length=1 << 50
    ),
    "a shape that is no size": lambda liar: http(
        liar.of_files([{"name": "a", "pieces": [{**_PIECE, "dtype": "F32", "shape": [1 << 62] * 16}]}], 1)
    ),
    "a delta of nothing": lambda liar: http(liar.delta()),
    "a delta of another base": lambda liar: http(
        liar.delta().replace(liar.first.manifest.content_hash.encode(), b"0" * 64)
    ),
    "a delta that is longer than all": lambda liar: http(liar.delta(num_bytes=1 << 52)),
    "a block of no piece": lambda liar: http(liar.delta(block(b"x", piece=1 << 31, coding=0))),
    "a block of no coding": lambda liar: http(liar.delta(block(b"x", coding=9))),
    "a block beyond its piece": lambda liar: http(liar.delta(block(b"x" * 8, coding=0, begin=1 << 63, num_values=1))),
    "a block that is no zstd": lambda liar: http(liar.delta(block(b"x" * 30, num_values=4000))),
    "a bomb": lambda liar: http(liar.delta(block(_bomb(1 << 24), num_values=4000))),
    "zeros that change a value twice": lambda liar: http(liar.delta(block(_bomb(8 + 5 * 2), num_values=4000))),
}


@pytest.fixture
def liar(learner: PublishingLearner) -> Liar:
    return Liar(learner)


@asynccontextmanager
async def nothing_changes(replica: FetchingReplica, served: Snapshot) -> AsyncIterator[None]:
    descriptors, refused = open_descriptors(), replica.loads("refused")
    yield
    assert replica.serves(served)
    # the server is in this process, too, and learns a little later that the replica has gone
    await wait_until_async(lambda: open_descriptors() <= descriptors)
    assert replica.loads("refused") <= refused + 2  # a delta, and all that it fell back to
    assert replica.policy.problem
    assert len(replica.policy.problem.splitlines()) == 1
    assert len(replica.policy.problem) <= 500


@pytest.fixture
async def serving(liar: Liar, learner: PublishingLearner, replica: FetchingReplica) -> FetchingReplica:
    """A replica that serves the first of the versions."""
    async with answering(http(frame(full_transfer(liar.first.manifest)) + _bytes_of(liar.first), "1.0-beef")) as url:
        await replica.fetch(url)
    assert replica.serves(liar.first)
    return replica


def _bytes_of(snapshot: Snapshot) -> bytes:
    files = contents(snapshot.directory)
    return b"".join(files[file.name] for file in snapshot.manifest.files)


async def test_whatever_it_answers_the_old_weights_serve(
    serving: FetchingReplica, liar: Liar, learner: PublishingLearner
) -> None:
    for name, make in HOSTILE.items():
        async with answering(make(liar)) as url, nothing_changes(serving, liar.first):
            with pytest.raises(IbtpoError) as caught:
                await serving.fetch(url)
            assert len(str(caught.value).splitlines()) == 1, name
    async with learner.serve() as url:
        await serving.fetch(url)  # no lie about a version stands in the way of the true one
    assert serving.serves(liar.newest)


async def test_gigabytes_are_read_up_to_the_first_that_is_wrong(serving: FetchingReplica, liar: Liar) -> None:
    answer = http(liar.full(), length=1 << 40)
    async with answering(answer, endless=b"x" * 65536) as url, nothing_changes(serving, liar.first):
        with pytest.raises(InvalidInput, match="bytes after its last file"):
            await serving.fetch(url)


async def test_a_learner_whose_answers_never_end_whole_is_given_up(serving: FetchingReplica, liar: Liar) -> None:
    """It says that more will come, and begins again each time."""
    async with answering(http(liar.full()[:-50], length=1 << 20)) as url, nothing_changes(serving, liar.first):
        with pytest.raises(Unavailable):
            await serving.fetch(url)


async def test_a_delta_may_not_decompress_without_end(serving: FetchingReplica, liar: Liar) -> None:
    """Each block is bounded, and harmless by itself."""
    places = enumerate(places_of(liar.newest.manifest))
    embedding = next(number for number, place in places if place.piece.tensor == "embed")
    changes = struct.pack("<II", 4000, 0) + _gaps(4000) + bytes(4000)
    bomb = block(zstandard.ZstdCompressor(1).compress(changes), piece=embedding, num_values=5000)
    async with answering(http(liar.delta(*[bomb] * 250))) as url, nothing_changes(serving, liar.first):
        with pytest.raises(InvalidInput, match="blocks hold over 32 times the bytes"):
            await serving.fetch(url)


def _gaps(count: int) -> bytes:
    return bytes([0]) + bytes([1]) * (count - 1) + bytes(3 * count)


@pytest.mark.parametrize("is_joiner", [True, False])
async def test_a_disk_that_is_full_is_the_problem_and_leaves_nothing(
    is_joiner: bool, learner: PublishingLearner, replica: FetchingReplica
) -> None:
    first = learner.publish()
    async with learner.serve() as url:
        if not is_joiner:
            await replica.fetch(url)
            learner.publish()
        descriptors = open_descriptors()
        with files_up_to(8000):
            for _ in range(3):
                with pytest.raises(Unavailable, match=r"cannot store weights under .*File too large"):
                    await replica.fetch(url)
                assert "cannot store weights" in replica.policy.problem
                assert list(replica.root.iterdir()) == [] if is_joiner else replica.serves(first)
        assert open_descriptors() == descriptors
        await replica.fetch(url)
    assert replica.serves(learner.latest)


@contextmanager
def files_up_to(num_bytes: int) -> Iterator[None]:
    """No file of this process grows beyond that, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_lie_about_a_version_that_is_to_come_is_not_kept(
    serving: FetchingReplica, liar: Liar, learner: PublishingLearner, tmp_path: Path
) -> None:
    other = PublishingLearner(tmp_path / "other", seed=7)
    for _ in range(3):
        lie = other.publish()
    true = learner.publish()
    assert lie.version == true.version == WeightVersion(1, 2, "beef")
    answer = http(frame(full_transfer(lie.manifest)) + _bytes_of(lie), "1.1-beef")
    async with answering(answer) as url, nothing_changes(serving, liar.first):
        with pytest.raises(IbtpoError, match=r"1\.1-beef is announced"):
            await serving.fetch(url)
    async with learner.serve() as url:
        await serving.fetch(url)
    assert serving.serves(true)
