"""Downloads over real sockets: every byte, resumed where they broke, ended at once, and no lie is believed."""

import asyncio
import os
import re
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from fastapi import APIRouter

from shared.clients.download import DownloadDeadlines, ResumePoint, download
from shared.errors import (
    Conflict,
    DeadlineExceeded,
    IbtpoError,
    InvalidInput,
    MalformedAnswer,
    Unauthorized,
    Unavailable,
    Unreachable,
)
from shared.runtime.config.url import with_port
from shared.runtime.streamed import FileAnswer, FileBody, FileSlice
from tests.clients.conftest import TOKEN
from tests.loops import on_both_loops
from tests.serving import serve_router
from tests.waiting import wait_until_async

NAME = "the learner at http://learner:8000"
HURRY = DownloadDeadlines(connect_seconds=0.3, silence_seconds=0.3, pauses_seconds=0.6)
TYPE = b"Content-Type: application/octet-stream\r\n"
START = b"HTTP/1.1 200 OK\r\n"
OK = START + TYPE
PARTIAL = b"HTTP/1.1 206 Partial Content\r\n" + TYPE
CERTIFICATE = Path(__file__).with_name("localhost.pem")


def num_sockets() -> int:
    links = []
    for number in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # that of the listing itself
            links.append(os.readlink(f"/proc/self/fd/{number}"))
    return sum(link.startswith("socket:") for link in links)


def num_threads() -> int:
    return sum(thread.name.startswith("socket") for thread in threading.enumerate())


async def fetch(url: str, resume: ResumePoint | None = None, **more: object) -> tuple[int, str, bytes]:
    """Where the bytes begin, their ETag, and they themselves."""
    received = bytearray()
    async with download(url, name=NAME, resume=resume, **more) as answer:  # type: ignore[arg-type]
        await answer.read(received.extend)
    assert len(received) == answer.num_bytes
    return answer.start, answer.etag, bytes(received)


@asynccontextmanager
async def serving(path: Path, token: str | None = None) -> AsyncIterator[str]:
    """The file as bytes that can be resumed, and some errors."""
    router = APIRouter()

    @asynccontextmanager
    async def hold(etag: str) -> AsyncIterator[FileBody]:
        yield FileBody([b"head", FileSlice(path, 0, path.stat().st_size)], etag)

    @router.get("/v1/file")
    async def file(etag: str = "a1") -> FileAnswer:
        return FileAnswer(hold(etag), "application/octet-stream")

    @router.get("/v1/errors/{kind}")
    async def fail(kind: str) -> None:
        raise {"conflict": Conflict, "invalid": InvalidInput, "unavailable": Unavailable}[kind](f"{kind}: 7")

    async with serve_router(router, token) as url:
        yield url


Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def scripted(
    script: Script | bytes, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
) -> AsyncIterator[str]:
    """A service that answers every request with these bytes, then closes; or does what the script says."""

    answering: list[tuple[asyncio.Task[None], asyncio.StreamWriter]] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            if isinstance(script, bytes):
                writer.write(script)
                await writer.drain()
            else:
                await script(reader, writer)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answering.append((asyncio.create_task(answer(reader, writer)), writer))

    server = await asyncio.start_server(accept, host, 0, ssl=tls)
    scheme, port = "https" if tls else "http", server.sockets[0].getsockname()[1]
    async with server:
        yield f"{scheme}://{with_port(host, port)}/v1/file"
    for task, writer in answering:
        writer.transport.abort()
        await task


async def say_and_wait(writer: asyncio.StreamWriter, reader: asyncio.StreamReader, text: bytes) -> None:
    """Until the caller leaves."""
    writer.write(text)
    await reader.read()


@pytest.mark.parametrize("num_bytes", [0, 1, 65_000, 3_000_001])
@on_both_loops
async def test_every_byte_comes_after_the_head(tmp_path: Path, num_bytes: int) -> None:
    path = tmp_path / "weights"
    path.write_bytes(os.urandom(num_bytes))
    async with serving(path) as url:
        async with download(f"{url}/v1/file", name=NAME) as answer:
            assert (answer.start, answer.num_bytes, answer.etag) == (0, num_bytes + 4, '"a1"')
            assert answer.headers["accept-ranges"] == "bytes"
            received = bytearray()
            await answer.read(received.extend)
        assert received == b"head" + path.read_bytes()


async def test_a_download_goes_on_where_it_broke_unless_the_bytes_are_others(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(os.urandom(300_000))
    content = b"head" + path.read_bytes()
    received = bytearray()
    broken = OK + b'ETag: "a1"\r\nContent-Length: %d\r\n\r\n' % len(content) + content[:100_000]
    async with scripted(broken) as url:
        with pytest.raises(Unreachable, match=r"after 100000 of 300004 bytes; ask for the rest"):
            async with download(url, name=NAME) as answer:
                await answer.read(received.extend)
    resume = ResumePoint(len(received), answer.etag)
    async with serving(path) as url:
        assert await fetch(f"{url}/v1/file", resume) == (100_000, '"a1"', content[100_000:])
        assert await fetch(f"{url}/v1/file?etag=b2", resume) == (0, '"b2"', content)
        with pytest.raises(InvalidInput, match="the range holds none of the 300004 bytes"):
            await fetch(f"{url}/v1/file", ResumePoint(300_004, '"a1"'))


async def test_a_hundred_downloads_at_once_leave_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(os.urandom(200_000))
    async with serving(path) as url:
        before = num_sockets()
        found = await asyncio.gather(*(fetch(f"{url}/v1/file") for _ in range(100)))
        assert set(found) == {(0, '"a1"', b"head" + path.read_bytes())}
        await wait_until_async(lambda: num_sockets() <= before)
        await wait_until_async(lambda: num_threads() == 0)


async def test_an_error_answer_is_the_error_that_it_names(tmp_path: Path) -> None:
    async with serving(tmp_path / "none", TOKEN) as url:
        for kind, error in {"conflict": Conflict, "invalid": InvalidInput, "unavailable": Unavailable}.items():
            with pytest.raises(error, match=f"{kind}: 7 .* from 127.0.0.1"):
                await fetch(f"{url}/v1/errors/{kind}", token=TOKEN)
        with pytest.raises(Unauthorized):
            await fetch(f"{url}/v1/errors/conflict")


LIES: dict[str, tuple[bytes, type[IbtpoError], str]] = {
    "a page": (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\n<>",
        MalformedAnswer,
        "text/html",
    ),
    "no type": (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n<>", MalformedAnswer, "no type"),
    "no length": (OK + b"\r\nabc", MalformedAnswer, "Content-Length"),
    "two lengths": (OK + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc", MalformedAnswer, "Content-Length"),
    "a negative length": (OK + b"Content-Length: -3\r\n\r\nabc", MalformedAnswer, "Content-Length"),
    "a length in words": (OK + b"Content-Length: 1_0\r\n\r\nabc", MalformedAnswer, "Content-Length"),
    "chunks": (OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", MalformedAnswer, "Content-Length"),
    "gzip": (OK + b"Content-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc", MalformedAnswer, "Content-Length"),
    "nothing to say": (b"HTTP/1.1 204 No Content\r\n\r\n", MalformedAnswer, "status 204"),
    "a part": (
        b"HTTP/1.1 206 Partial Content\r\n" + TYPE + b"Content-Length: 1\r\n\r\na",
        MalformedAnswer,
        "all bytes",
    ),
    "a redirect": (
        b"HTTP/1.1 302 Found\r\nLocation: http://u:p@other/x?key=1\r\n\r\n",
        InvalidInput,
        "to http://other/x,",
    ),
    "a proxy's page": (b"HTTP/1.1 502 Bad\r\nContent-Length: 9\r\n\r\n<h1>\n\nno\n", Unavailable, "<h1> no "),
    "an error in chunks": (
        b"HTTP/1.1 409 Conflict\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nolde\r\n1\r\nr\r\n0\r\n\r\n",
        Conflict,
        "older ",
    ),
    "no HTTP": (b"SSH-2.0-OpenSSH\r\n", MalformedAnswer, "no HTTP"),
    "no end of a header": (OK + b"X: " + b"x" * 200_000, MalformedAnswer, "no HTTP"),
    "no end of headers": (OK + b"X: y\r\n" * 200, MalformedAnswer, "no HTTP"),
    "nothing": (b"", Unreachable, "cannot be reached"),
    "half a head": (b"HTTP/1.1 200 OK\r\nContent-", MalformedAnswer, "Content-Length|no type"),
    "half a body": (OK + b"Content-Length: 9\r\n\r\nabc", Unreachable, "after 3 of 9 bytes"),
}


@pytest.mark.parametrize("lie", LIES)
async def test_no_lie_is_believed_and_the_error_is_one_line(lie: str) -> None:
    answer, error, says = LIES[lie]
    async with scripted(answer) as url:
        with pytest.raises(error, match=says) as raised:
            await fetch(url)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"Content-Range: bytes 4-9/10\r\n",
        b"Content-Range: bytes 5-9/11\r\n",
        b"Content-Range: bytes 5-9/*\r\n",
        b"Content-Range: bytes 5-8/9\r\n",
        b'Content-Range: bytes 5-9/10\r\nETag: "b2"\r\n',
    ],
)
async def test_another_part_than_that_which_was_asked_for_is_refused(said: bytes) -> None:
    async with scripted(PARTIAL + b"Content-Length: 5\r\n" + said + b"\r\nabcde") as url:
        with pytest.raises(MalformedAnswer, match='asked for bytes 5- of "a1"'):
            await fetch(url, ResumePoint(5, '"a1"'))


async def test_a_service_that_dribbles_or_falls_silent_is_given_up() -> None:
    async def dribble_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not writer.is_closing():
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            await asyncio.sleep(0.01)

    async def dribble_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + b"Content-Length: 100000\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"x")
            await asyncio.sleep(0.01)

    async def silent_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await say_and_wait(writer, reader, b"HTTP/1.1 200")

    async def silent_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await say_and_wait(writer, reader, OK + b"Content-Length: 9\r\n\r\nabc")

    for script, says in (
        (dribble_head, "did not answer within 0.6 s"),
        (dribble_body, r"sends too slowly: \d+ of 100000 bytes in 0.6\d* s"),
        (silent_head, "did not answer within 0.6 s"),
        (silent_body, "sent no byte for 0.3 s, after 3 of 9 bytes"),
    ):
        async with scripted(script) as url:
            with pytest.raises(DeadlineExceeded, match=says):
                await fetch(url, deadlines=HURRY)


async def test_a_reset_is_unreachable() -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + b"Content-Length: 9\r\n\r\nabc")
        await writer.drain()
        linger = b"\x01\0\0\0\0\0\0\0"
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()

    async with scripted(reset) as url:
        with pytest.raises(Unreachable, match=r"of 9 bytes"):
            await fetch(url)
    with pytest.raises(Unreachable, match=r"cannot be reached: Connection refused"):
        await fetch(url)


@asynccontextmanager
async def deaf() -> AsyncIterator[str]:
    """A port whose queue is full: who connects waits."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        address = listener.getsockname()
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(address)
        yield f"http://127.0.0.1:{address[1]}/v1/file"
        for filler in fillers:
            filler.close()


@pytest.mark.parametrize("stage", ["connect", "head", "body", "body over TLS"])
@on_both_loops
async def test_a_cancelled_download_ends_at_once_with_its_thread(stage: str) -> None:
    tls = (server_tls(), ssl.create_default_context(cafile=str(CERTIFICATE))) if "TLS" in stage else (None, None)
    head = b"" if stage == "head" else OK + b"Content-Length: 9\r\n\r\nabc"

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await say_and_wait(writer, reader, head)

    started = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def fetch_for_ever(url: str) -> None:
        async with download(url, name=NAME, tls=tls[1]) as answer:
            await answer.read(lambda _: loop.call_soon_threadsafe(started.set))

    async with deaf() if stage == "connect" else scripted(hang, tls[0]) as url:
        task = asyncio.create_task(fetch_for_ever(url))
        await wait_until_async(lambda: num_threads() == 1)
        if "body" in stage:
            await started.wait()
        task.cancel()
        async with asyncio.timeout(2):
            with pytest.raises(asyncio.CancelledError):
                await task
        await wait_until_async(lambda: num_threads() == 0)


async def test_who_never_takes_the_connection_is_not_waited_for() -> None:
    async with deaf() as url:
        with pytest.raises(DeadlineExceeded, match=r"did not answer within 0\.3 s"):
            await fetch(url, deadlines=HURRY)


async def test_what_the_taker_raises_ends_the_download_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(bytes(3_000_000))
    calls = []

    def full(view: memoryview) -> None:
        calls.append(len(view))
        raise OSError(28, "No space left on device")

    def enough(view: memoryview) -> bool:
        calls.append(len(view))
        return False

    async with serving(path) as url, download(f"{url}/v1/file", name=NAME) as answer:
        with pytest.raises(OSError, match="No space left on device"):
            await answer.read(full)
    async with serving(path) as url, download(f"{url}/v1/file", name=NAME) as answer:
        await answer.read(enough)
    assert len(calls) == 2


async def test_no_proxy_of_the_environment_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    (tmp_path / "weights").write_bytes(b"abc")
    async with serving(tmp_path / "weights") as url:
        assert (await fetch(f"{url}/v1/file"))[2] == b"headabc"


def server_tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    return context


async def test_https_is_verified_by_its_certificate() -> None:
    content = os.urandom(200_000)
    async with scripted(OK + b"Content-Length: 200000\r\n\r\n" + content, server_tls()) as url:
        trusted = ssl.create_default_context(cafile=str(CERTIFICATE))
        assert (await fetch(url, tls=trusted))[2] == content
        with pytest.raises(Unreachable, match="certificate verify failed"):
            await fetch(url)


async def test_every_address_of_a_name_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    async with scripted(OK + b"Content-Length: 3\r\n\r\nabc") as url:
        port = url.rpartition(":")[2].partition("/")[0]
        found = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (host, int(port))) for host in ("127.0.0.2", "127.0.0.1")]

        async def getaddrinfo(*_: object, **__: object) -> list[object]:
            return list(found)

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
        assert (await fetch(url.replace("127.0.0.1", "replica")))[2] == b"abc"
        found.reverse()
        assert (await fetch(url.replace("127.0.0.1", "replica")))[2] == b"abc"
        found[:] = found[1:]
        with pytest.raises(Unreachable, match="Connection refused"):
            await fetch(url.replace("127.0.0.1", "replica"))


async def test_an_ipv6_address_is_called_as_any_other() -> None:
    async with scripted(OK + b"Content-Length: 3\r\n\r\nabc", host="::1") as url:
        assert (await fetch(url))[2] == b"abc"


@pytest.mark.parametrize("url", ["ftp://h/x", "http://", "h:8000/x", "http://h:port/x", "http://[::1/x"])
async def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match=re.escape(NAME)):
        await fetch(url)


async def test_nothing_but_one_header_fits_into_a_token_or_an_etag() -> None:
    with pytest.raises(InvalidInput, match="the token has characters") as raised:
        await fetch("http://127.0.0.1:9/", token="secret\r\nX: y")
    assert "secret" not in str(raised.value)
    for etag in ("a1", 'W/"a1"', '"a\r\n"', ""):
        with pytest.raises(ValueError, match="a strong ETag"):
            ResumePoint(1, etag)
