"""One bounded question over HTTP to what may not be our service: a deadline, few bytes, no redirects, no decoding."""

import asyncio
import json
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import httpx

from shared.runtime.config import without_secrets
from shared.runtime.config.url import check_url

MAX_BYTES = 1 << 20
_SHOWN_BYTES = 60


class ProbeFailed(Exception):
    """There is no answer that a service of ours gives: what was found instead, and what to do."""

    def __init__(self, found: str, remedy: str) -> None:
        super().__init__(found)
        self.found = found
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class Question:
    path: str
    method: str = "GET"
    body: bytes | None = None
    token: str | None = None
    reads_body: bool = True


@dataclass(frozen=True, slots=True)
class ServiceAnswer:
    status: int
    headers: httpx.Headers
    body: bytes
    seconds: float

    def json_object(self) -> dict[str, Any]:
        """The object in the body; ProbeFailed when it holds none."""
        try:
            found = json.loads(self.body)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            kind = self.headers.get("content-type", "no content type").partition(";")[0]
            raise ProbeFailed(
                f"answers {self.status} with {kind} that begins {_begin(self.body)}",
                "this is another server: correct host and port",
            )
        return found

    @property
    def detail(self) -> str:
        """What an error answer of ours says; empty for another's."""
        try:
            return str(self.json_object().get("detail", ""))
        except ProbeFailed:
            return ""

    @property
    def clock_ahead_seconds(self) -> float:
        """How far the server's clock is ahead of ours; 0 where it does not tell, or within its resolution."""
        try:
            found = parsedate_to_datetime(self.headers["date"]).timestamp() - time.time()
        except (KeyError, ValueError, TypeError, OverflowError):
            return 0.0
        return found if abs(found) > 1.0 + self.seconds else 0.0


class ServiceProbe:
    """Asks one service. An async context manager. ValueError for what is no URL."""

    def __init__(self, url: str, seconds: float) -> None:
        self.url = check_url(url).rstrip("/")
        self.shown = without_secrets(self.url)
        self.host = urlsplit(self.url).hostname or ""
        self._seconds = seconds
        # redirects would lead elsewhere, a proxy too, and few bytes may be much once they are decompressed
        self._http = httpx.AsyncClient(
            timeout=seconds, trust_env=False, follow_redirects=False, headers={"Accept-Encoding": "identity"}
        )

    async def __aenter__(self) -> "ServiceProbe":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def ask(self, question: Question) -> ServiceAnswer:
        """The answer, whatever its status; ProbeFailed when it is none of a service of ours."""
        try:
            async with asyncio.timeout(self._seconds):
                answer = await self._exchange(question)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError, UnicodeError) as error:
            raise explain(error, self._seconds, self.url) from error
        if 300 <= answer.status < 400:
            raise ProbeFailed(
                f"redirects ({answer.status}) to {_target(answer)}, which is not followed",
                "give the address of the service itself, not of a proxy or a login page before it",
            )
        return answer

    async def _exchange(self, question: Question) -> ServiceAnswer:
        headers = {"Authorization": f"Bearer {question.token}"} if question.token else {}
        if question.body is not None:
            headers["Content-Type"] = "application/json"
        started = time.monotonic()
        async with self._http.stream(
            question.method, self.url + question.path, content=question.body, headers=headers
        ) as response:
            seconds = time.monotonic() - started
            body = await _read(response) if question.reads_body else b""
            return ServiceAnswer(response.status_code, response.headers, body, seconds)


async def _read(response: httpx.Response) -> bytes:
    encoding = response.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise ProbeFailed(f"answers compressed ({encoding}), unasked", "this is another server: correct host and port")
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > MAX_BYTES:
            raise ProbeFailed(
                f"sends more than {MAX_BYTES >> 20} MiB, beginning {_begin(bytes(body))}",
                "this is another server: correct host and port",
            )
    return bytes(body)


def _target(answer: ServiceAnswer) -> str:
    try:
        return without_secrets(answer.headers.get("location", "nowhere"))
    except ValueError:
        return "what is no URL"


def explain(error: BaseException, seconds: float, url: str) -> ProbeFailed:
    """Why there is no connection, or no answer."""
    parts = urlsplit(url)
    address = f"{parts.hostname}:{parts.port}" if parts.port else f"{parts.hostname}"
    causes = list(_causes(error))
    if any(isinstance(cause, socket.gaierror) for cause in causes):
        return ProbeFailed(
            f"the name {parts.hostname} does not resolve here",
            "check the spelling; names of Compose and Kubernetes resolve only inside, so ask from a container or pod",
        )
    if any(isinstance(cause, ConnectionRefusedError) for cause in causes):
        return ProbeFailed(
            f"nothing listens at {address}",
            "is it started, and the port right? Without a token a service listens on its own machine's loopback only",
        )
    tls = next((cause for cause in causes if isinstance(cause, ssl.SSLError)), None)
    if tls is not None:
        return ProbeFailed(
            f"TLS with {address} fails: {tls.reason or tls}",
            "services speak plain HTTP: write http://, or give the certificate's name and trust its authority",
        )
    if any(isinstance(cause, httpx.ConnectTimeout) for cause in causes):
        return ProbeFailed(
            f"no connection to {address} within {seconds:g} s",
            "a firewall, a NetworkPolicy or a wrong address drops the packets: ask from where the services run",
        )
    if any(isinstance(cause, TimeoutError | httpx.TimeoutException) for cause in causes):
        return ProbeFailed(
            f"connects to {address}, and has no whole answer within {seconds:g} s",
            "it hangs, is very busy, or is another server: see its log, restart it",
        )
    if any(isinstance(cause, httpx.RemoteProtocolError) for cause in causes):
        return ProbeFailed(
            f"what listens at {address} does not speak HTTP ({error})",
            "another server has this port, or it wants TLS (https://): correct host and port",
        )
    return ProbeFailed(f"no answer from {address}: {error or type(error).__name__}", "see its log, and the network")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error, and all that led to it."""
    waiting, seen = [error], set[int]()
    while waiting:
        cause = waiting.pop()
        if id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        inner = cause.exceptions if isinstance(cause, BaseExceptionGroup) else ()
        waiting += [one for one in (*inner, cause.__cause__, cause.__context__) if one is not None]


def _begin(body: bytes) -> str:
    return repr(body[:_SHOWN_BYTES].decode(errors="replace")) if body else "nothing"
