"""HTTP connections that no stranger can hold: request heads are bounded and timed, connections are limited."""

import asyncio
import resource
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from shared.runtime.http_errors import problem_details
from shared.runtime.zero_copy import ZeroCopySend

_LINGER_SECONDS = 2.0


def _half_of_the_descriptors() -> int:
    """The process needs descriptors for more than its callers."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 4096 if soft == resource.RLIM_INFINITY else max(8, min(4096, soft // 2))


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What a caller may take before it has shown a token: a request's head in bytes and in seconds, seconds without
    reading an answer, requests sent ahead of their answers, and the connections of all callers."""

    head_bytes: int = 64 * 1024
    head_seconds: float = 10.0
    unread_seconds: float = 60.0
    sent_ahead: int = 16
    connections: int = field(default_factory=_half_of_the_descriptors)


class _Refused(Exception):
    """Ends the parsing of a request; the connection knows the answer."""


class BoundedConnection(HttpToolsProtocol):
    """uvicorn's connection, within limits, and with zero-copy sends.

    When there are too many, the one makes room that has been silent for longest while a request of it is incomplete, so
    that a probe gets in. Where every caller waits for an answer, the new one is refused.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        limits: ConnectionLimits,
        threads: ThreadPoolExecutor,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._zero_copy = ZeroCopySend(cast(ASGIApp, self.app), threads, limits.unread_seconds)
        self.app = cast(Any, self._zero_copy)
        self._limits = limits
        self._heard_at = time.monotonic()
        self._num_unparsed = 0  # bytes since the last complete head or piece of a body
        self._refusal = (HTTPStatus.BAD_REQUEST, "this is not HTTP/1.1")
        self._is_refused = False
        self._head_timer: asyncio.TimerHandle | None = None
        self._unread_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._await_head()
        if len(self.connections) > self._limits.connections and not self._make_room():
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "all connections of this service are in use; try again")

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._zero_copy.stop()
        self._unset_keepalive_if_required()
        self._cancel(self._head_timer)
        self._cancel(self._unread_timer)

    def data_received(self, data: bytes) -> None:
        if self._is_refused or self.transport.is_closing():
            return
        self._heard_at = time.monotonic()
        self._num_unparsed += len(data)
        super().data_received(data)
        if self._num_unparsed > self._limits.head_bytes:
            self._refuse(*self._head_too_large())

    def on_headers_complete(self) -> None:
        head_bytes = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if head_bytes > self._limits.head_bytes:
            self._refusal = self._head_too_large()
            raise _Refused
        if len(self.pipeline) >= self._limits.sent_ahead:
            raise _Refused
        self._num_unparsed = 0
        self._cancel(self._head_timer)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._num_unparsed = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._num_unparsed = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self._is_owed_an_answer():
            self._await_head()

    def send_400_response(self, msg: str) -> None:
        """What uvicorn calls where the parser gives up."""
        self._refuse(*self._refusal)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread_timer = self.loop.call_later(self._limits.unread_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._cancel(self._unread_timer)

    def _await_head(self) -> None:
        self._cancel(self._head_timer)
        self._head_timer = self.loop.call_later(self._limits.head_seconds, self._on_late_head)

    def _on_late_head(self) -> None:
        if self._num_unparsed:
            seconds = self._limits.head_seconds
            self._refuse(HTTPStatus.REQUEST_TIMEOUT, f"the head of a request was not complete within {seconds:g} s")
        else:
            self.transport.close()

    def _head_too_large(self) -> tuple[HTTPStatus, str]:
        limit = self._limits.head_bytes
        return HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"the head of a request has at most {limit} bytes; send less"

    def _is_owed_an_answer(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _make_room(self) -> bool:
        """Closes the connection that has owed bytes of a request in silence for longest; False if none owes any."""
        owing = [
            connection
            for connection in self.connections
            if isinstance(connection, BoundedConnection) and connection is not self and connection._owes_bytes()
        ]
        if owing:
            min(owing, key=lambda connection: connection._heard_at).transport.abort()
        return bool(owing)

    def _owes_bytes(self) -> bool:
        if self.transport.is_closing() or self.flow.read_paused:
            return False
        return not self._is_owed_an_answer() or self.cycle.more_body

    def _refuse(self, status: HTTPStatus, detail: str) -> None:
        """Answers, unless it would garble an answer in progress, and closes once the caller has had time to read."""
        if self._is_refused or self.transport.is_closing():
            return
        self._is_refused = True
        if self._is_owed_an_answer():
            self.transport.abort()
            return
        answer = problem_details(status, detail, headers={"Connection": "close"})
        head = b"".join(b"%s: %s\r\n" % header for header in answer.raw_headers)
        self.transport.write(STATUS_LINE[status] + head + b"\r\n" + bytes(answer.body))
        self.transport.write_eof()
        # what still comes is discarded: closing at once would reset the connection before the answer is read
        self.loop.call_later(_LINGER_SECONDS, self.transport.abort)

    @staticmethod
    def _cancel(timer: asyncio.TimerHandle | None) -> None:
        if timer is not None:
            timer.cancel()
