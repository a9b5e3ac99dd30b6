"""Downloads of many bytes: a GET by a blocking socket in a thread of its own, read into one buffer."""

import asyncio
import http.client
import re
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus

import httpx

from shared.clients.interruptible import InterruptibleSocket
from shared.errors import DeadlineExceeded, InvalidInput, MalformedAnswer, Unreachable, shorten
from shared.runtime.client import raise_for_error
from shared.runtime.config.url import without_secrets

MEDIA_TYPE = "application/octet-stream"
Feed = Callable[[memoryview], object]
"""Takes bytes as they come, in the download's thread; the view is of a buffer that the next read fills again. False: no
more are wanted."""
_BUFFER_BYTES = 1 << 20
_MOST_ERROR_BYTES = 1 << 16
_NUMBER = re.compile(r"\d{1,18}", re.ASCII)
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})", re.ASCII)


@dataclass(frozen=True, slots=True)
class DownloadDeadlines:
    """Seconds until there is a connection; between two bytes of the body; and of all waits together: `pauses_seconds`
    and one more for each MiB that came. The head has `pauses_seconds` for itself."""

    connect_seconds: float = 5.0
    silence_seconds: float = 10.0
    pauses_seconds: float = 20.0

    def __post_init__(self) -> None:
        if min(self.connect_seconds, self.silence_seconds, self.pauses_seconds) <= 0:
            raise ValueError(f"each deadline is more than 0 s, unlike in {self}")


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """What a download that broke off left here: the first `num_bytes` of the bytes whose ETag is `etag`."""

    num_bytes: int
    etag: str

    def __post_init__(self) -> None:
        if self.num_bytes < 1 or not re.fullmatch(r'"[!#-~]*"', self.etag):
            raise ValueError(f'{self.num_bytes} bytes of {self.etag!r}: one or more, and a strong ETag, such as "a1b2"')


class OpenDownload:
    """An answer whose head has come: `num_bytes` follow, the first of which belongs at `start`. That is 0 unless the
    service goes on where `ResumePoint` ends. `etag`, empty where there is none, is what to resume by."""

    def __init__(
        self,
        name: str,
        line: InterruptibleSocket,
        answer: http.client.HTTPResponse,
        resume: ResumePoint | None,
        deadlines: DownloadDeadlines,
    ) -> None:
        self.headers = httpx.Headers(answer.getheaders())
        span = _sent_range(name, answer.status, self.headers, resume)
        self.start, self.num_bytes = span.start, len(span)
        self.etag = self.headers.get("ETag", "")
        self._name = name
        self._line = line
        self._answer = answer
        self._deadlines = deadlines
        self._num_read = 0
        self._waited_seconds = 0.0

    async def read(self, feed: Feed) -> None:
        """Gives `feed` every byte, in order, while it wants any; what it raises ends the download. Unreachable if the
        answer breaks off, DeadlineExceeded if it comes too slowly."""
        await self._line.run(partial(self._read, feed))

    def _read(self, feed: Feed) -> None:
        buffer = memoryview(bytearray(min(_BUFFER_BYTES, self.num_bytes)))
        while self._num_read < self.num_bytes:
            num_bytes = self._read_into(buffer[: self.num_bytes - self._num_read])
            if num_bytes == 0 or self._line.is_ended:
                raise Unreachable(f"{self._name} ended its answer after {self._progress}; ask for the rest")
            self._num_read += num_bytes
            if feed(buffer[:num_bytes]) is False:
                return

    def _read_into(self, view: memoryview) -> int:
        silence_seconds = self._deadlines.silence_seconds
        allowed_seconds = self._deadlines.pauses_seconds + self._num_read / (1 << 20)
        left_seconds = max(allowed_seconds - self._waited_seconds, 0.001)
        self._line.connection.settimeout(min(silence_seconds, left_seconds))
        started = time.monotonic()
        try:
            num_bytes: int = self._answer.fp.readinto1(view)
        except TimeoutError as error:
            if silence_seconds < left_seconds:
                raise DeadlineExceeded(
                    f"{self._name} sent no byte for {silence_seconds:g} s, after {self._progress}; ask for the rest"
                ) from error
            raise DeadlineExceeded(
                f"{self._name} sends too slowly: {self._progress} in {allowed_seconds:g} s of waiting; ask for the rest"
            ) from error
        except OSError as error:
            reason = _reason(error)
            raise Unreachable(f"{self._name} broke off after {self._progress}: {reason}; ask for the rest") from error
        self._waited_seconds += time.monotonic() - started
        return num_bytes

    @property
    def _progress(self) -> str:
        return f"{self._num_read} of {self.num_bytes} bytes"


@asynccontextmanager
async def download(
    url: str,
    *,
    name: str,
    token: str | None = None,
    resume: ResumePoint | None = None,
    deadlines: DownloadDeadlines = DownloadDeadlines(),
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[OpenDownload]:
    """Asks for the bytes at `url`, or for what follows those that `resume` says are here.

    Before the block it raises what the service, called `name`, answered with (shared.errors), Unreachable,
    DeadlineExceeded or MalformedAnswer. It goes to the service itself: through no proxy of the environment, and
    follows no redirect.
    """
    asked, request = _request(url, name, token, resume)
    line = InterruptibleSocket()
    try:
        async with _answering(name, deadlines.connect_seconds):
            await _connect(line, asked, deadlines.connect_seconds, tls)
        with closing(http.client.HTTPResponse(line.connection, method="GET")) as answer:
            async with _answering(name, deadlines.pauses_seconds):
                await line.run(partial(_ask, line, asked, request, answer, name))
            yield OpenDownload(name, line, answer, resume, deadlines)
    finally:
        line.close()


@asynccontextmanager
async def _answering(name: str, within_seconds: float) -> AsyncIterator[None]:
    """A deadline, and errors of connections as ours."""
    try:
        async with asyncio.timeout(within_seconds):
            yield
    except TimeoutError as error:
        raise DeadlineExceeded(f"{name} did not answer within {within_seconds:g} s; it may be busy or hung") from error
    except (OSError, UnicodeError) as error:
        raise Unreachable(
            f"{name} cannot be reached: {_reason(error)}; check that it runs and that the URL is right"
        ) from error
    except http.client.HTTPException as error:
        raise MalformedAnswer(f"{name} answered with what is no HTTP: {shorten(repr(error))}") from error


def _request(url: str, name: str, token: str | None, resume: ResumePoint | None) -> tuple[httpx.URL, bytes]:
    """The URL, and what is sent to ask for it."""
    try:
        asked = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise InvalidInput(f"{name} has no URL that can be asked: {error}") from error
    if asked.scheme not in ("http", "https") or not asked.host:
        raise InvalidInput(f"{name} is asked at http://HOST:PORT/… or https://…, not at {without_secrets(url)!r}")
    lines = [
        f"GET {asked.raw_path.decode('ascii')} HTTP/1.1",
        f"Host: {asked.netloc.decode('ascii')}",
        f"Accept: {MEDIA_TYPE}",
        "Accept-Encoding: identity",
        "Connection: close",
    ]
    if token:
        if not re.fullmatch(r"[!-~]+", token):
            raise InvalidInput("the token has characters that no header can carry; use ASCII without spaces")
        lines.append(f"Authorization: Bearer {token}")
    if resume is not None:
        lines += [f"Range: bytes={resume.num_bytes}-", f"If-Range: {resume.etag}"]
    return asked, "\r\n".join([*lines, "", ""]).encode("ascii")


async def _connect(
    line: InterruptibleSocket, asked: httpx.URL, within_seconds: float, tls: ssl.SSLContext | None
) -> None:
    port = asked.port or (443 if asked.scheme == "https" else 80)
    addresses = await asyncio.get_running_loop().getaddrinfo(asked.host, port, type=socket.SOCK_STREAM)
    await line.run(partial(line.connect, addresses, within_seconds))
    if asked.scheme == "https":
        if tls is None:  # as the HTTP client between services has it
            tls = await asyncio.to_thread(httpx.create_ssl_context, trust_env=False)
        await line.run(partial(line.start_tls, tls, asked.host))


def _ask(
    line: InterruptibleSocket, asked: httpx.URL, request: bytes, answer: http.client.HTTPResponse, name: str
) -> None:
    """Reads the head of a success; raises what another answer says."""
    line.connection.settimeout(None)  # the caller has a deadline over all of it
    line.connection.sendall(request)
    answer.begin()
    if answer.status in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
        return
    if 300 <= answer.status < 400:
        where = shorten(without_secrets(answer.getheader("Location", "no URL")))
        raise InvalidInput(f"{name} redirects to {where}, which is not followed; give the URL where it answers itself")
    body = answer.read(_MOST_ERROR_BYTES)
    raise_for_error(
        httpx.Response(
            answer.status,
            headers={"Content-Type": answer.getheader("Content-Type", "")},
            content=body,
            request=httpx.Request("GET", asked),
        )
    )
    raise MalformedAnswer(f"{name} answered with status {answer.status}, which is neither bytes nor an error")


def _sent_range(name: str, status: int, headers: httpx.Headers, resume: ResumePoint | None) -> range:
    """Which bytes an answer brings; MalformedAnswer unless it says so plainly, and they are what was asked for."""
    media_type = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if media_type != MEDIA_TYPE:
        raise MalformedAnswer(f"{name} answered with {shorten(media_type) or 'no type'}, not with {MEDIA_TYPE}")
    lengths = set(headers.get_list("Content-Length"))
    encodings = {*headers.get_list("Transfer-Encoding"), *headers.get_list("Content-Encoding")} - {"identity"}
    if encodings or len(lengths) != 1 or not _NUMBER.fullmatch(length := lengths.pop()):
        raise MalformedAnswer(
            f"{name} answered without one plain Content-Length; a download has its length in its head"
        )
    if status == HTTPStatus.OK:
        return range(int(length))
    said = headers.get("Content-Range", "")
    if resume is not None and (match := _CONTENT_RANGE.fullmatch(said)):
        first, last, total = map(int, match.groups())
        sent = range(first, last + 1)
        is_same = headers.get("ETag", resume.etag) == resume.etag
        if is_same and first == resume.num_bytes and sent.stop == total and len(sent) == int(length):
            return sent
    wanted = "all bytes" if resume is None else f"bytes {resume.num_bytes}- of {resume.etag}"
    raise MalformedAnswer(f"{name} was asked for {wanted}, and answered with {shorten(said) or 'a part of some'}")


def _reason(error: Exception) -> str:
    return shorten(getattr(error, "strerror", None) or str(error) or type(error).__name__)
