"""What every request passes first: metrics and drain, the token, the bound on its body."""

import asyncio
import contextlib
import hmac
import ipaddress
import time
from collections.abc import Mapping
from http import HTTPStatus
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.errors import IbtpoError, TooLarge, Unauthorized, Unavailable
from shared.runtime.drain import Drain
from shared.runtime.http_errors import error_response, problem_details
from shared.runtime.logs import event_logger

log = event_logger(__name__)

PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
OPEN_PATHS = PROBES | {"/docs", "/openapi.json"}
_LINGER_SECONDS = 5.0
_BUCKETS = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 150, 300, 600)


class RequestMetrics:
    """Outermost: measures each request, counts it in flight, refuses new ones in a drain, and answers 500 for an
    exception that nobody caught, which goes to the log alone."""

    def __init__(self, app: ASGIApp, name: str, drain: Drain, registry: CollectorRegistry) -> None:
        self._app = app
        self._drain = drain
        labels = ("method", "route", "status")
        self._requests = Counter(f"ibtpo_{name}_http_requests_total", "Requests answered.", labels, registry=registry)
        self._seconds = Histogram(
            f"ibtpo_{name}_http_request_seconds", "Time to answer.", ("route",), registry=registry, buckets=_BUCKETS
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in PROBES:
            await self._app(scope, receive, send)
            return
        self._drain.request_started()
        try:
            await self._measure(scope, receive, send)
        finally:
            self._drain.request_ended()

    async def _measure(self, scope: Scope, receive: Receive, send: Send) -> None:
        status = 0
        start = time.monotonic()

        async def note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._answer(scope, receive, note_status)
        except asyncio.CancelledError:
            if status or not self._drain.begun.is_set():
                raise
            await error_response(Unavailable("this service ended before it had an answer; ask another replica"))(
                scope, receive, note_status
            )
        except ClientDisconnect:
            log.info("caller_left", method=scope["method"], path=scope["path"])
        except Exception as error:  # the border of every request: the log gets it, the caller a 500
            if status:  # half an answer is out: only breaking the connection tells the caller; the server logs why
                log.error("answer_broken", method=scope["method"], path=scope["path"], error=repr(error))
                raise
            log.exception("request_failed", method=scope["method"], path=scope["path"])
            await _internal_error()(scope, receive, note_status)
        finally:
            self._record(scope, status, time.monotonic() - start)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        # labels come from small closed sets: a route's template, not the path that a stranger made up
        route = getattr(scope.get("route"), "path", "unknown")
        self._requests.labels(scope["method"], route, str(status or "cut")).inc()
        self._seconds.labels(route).observe(seconds)
        log.debug("request", method=scope["method"], path=scope["path"], status=status, seconds=round(seconds, 4))

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._drain.begun.is_set():
            await _refuse(
                scope, receive, send, error_response(Unavailable("this service is draining; ask another replica"))
            )
            return
        await self._app(scope, receive, send)


class BearerGuard:
    """Requires the bearer token; probes, metrics and the API's description stay open."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._expected = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS or self._bears_token(scope):
            await self._app(scope, receive, send)
            return
        error = Unauthorized("send 'Authorization: Bearer <token>' with the token this service was started with")
        await _refuse(scope, receive, send, error_response(error))

    def _bears_token(self, scope: Scope) -> bool:
        given = b"".join(value for name, value in scope["headers"] if name == b"authorization")
        scheme, _, credentials = given.partition(b" ")
        # compared in constant time: the time taken must not tell how much of a guess was right
        return scheme.lower() == b"bearer" and hmac.compare_digest(credentials.strip(), self._expected)


class CrossOriginGuard:
    """For a service without a token: refuses what a web page of another site makes a local browser send, also under a
    name of its own that it lets point to this machine."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        origin, host = _header(scope, b"origin"), _header(scope, b"host")
        if (not origin or _is_local(origin)) and (not host or _is_local(f"//{host}")):
            await self._app(scope, receive, send)
            return
        error = Unauthorized(
            "a page of another site sent this, or under a name that is not of this machine; start the service with a "
            "token to use it so, or call it by 127.0.0.1 or localhost"
        )
        await _refuse(scope, receive, send, error_response(error))


def _header(scope: Scope, wanted: bytes) -> str:
    return b"".join(value for name, value in scope.get("headers", ()) if name == wanted).decode("latin-1")


def _is_local(url: str) -> bool:
    try:
        return is_loopback(urlsplit(url).hostname or "")
    except ValueError:
        return False


class BodyLimit:
    """Refuses a body over its bound: by its declared length, or as soon as it passes the bound."""

    def __init__(
        self, app: ASGIApp, max_bytes: int, max_bytes_of_prefix: Mapping[str, int], stall_seconds: float = 60.0
    ) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._max_bytes_of_prefix = max_bytes_of_prefix
        self._stall_seconds = stall_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _BoundedBody(receive, self._bound_of(scope["path"]), self._stall_seconds)
        declared = b"".join(value for name, value in scope["headers"] if name == b"content-length")
        if declared.isdigit() and int(declared) > body.max_bytes:
            await _refuse(scope, receive, send, error_response(body.too_large()))
            return

        async def send_unless_refused(message: Message) -> None:
            if body.refusal is None or body.answered:
                body.answered = True
                await send(message)

        try:
            await self._app(scope, body.receive, send_unless_refused)
        except IbtpoError as error:
            if error is not body.refusal:
                raise
        if body.refusal is not None and not body.answered:
            await _refuse(scope, receive, send, error_response(body.refusal), is_body_read=body.is_complete)

    def _bound_of(self, path: str) -> int:
        bounds = [bound for prefix, bound in self._max_bytes_of_prefix.items() if path.startswith(prefix)]
        return max(bounds, default=self._max_bytes)


class _BoundedBody:
    """A request's body as it arrives: its bytes are counted, and every wait has a deadline."""

    def __init__(self, receive: Receive, max_bytes: int, stall_seconds: float) -> None:
        self.max_bytes = max_bytes
        self.refusal: IbtpoError | None = None
        self.answered = False
        self._receive = receive
        self._stall_seconds = stall_seconds
        self._num_bytes = 0
        self.is_complete = False

    def too_large(self) -> TooLarge:
        return TooLarge(f"the body is over {self.max_bytes} bytes, which is the most this route takes; send less")

    async def receive(self) -> Message:
        if self.is_complete:
            return await self._receive()
        try:
            async with asyncio.timeout(self._stall_seconds):
                message = await self._receive()
        except TimeoutError:
            self.refusal = Unavailable(f"no byte of the body came for {self._stall_seconds:g} s; send it again")
            raise self.refusal from None
        if message["type"] == "http.request":
            self.is_complete = not message.get("more_body", False)
            self._num_bytes += len(message.get("body", b""))
            if self._num_bytes > self.max_bytes:
                self.refusal = self.too_large()
                raise self.refusal
        return message


def _internal_error() -> Response:
    return problem_details(HTTPStatus.INTERNAL_SERVER_ERROR, "an internal error; this service's log shows it")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def _refuse(scope: Scope, receive: Receive, send: Send, answer: Response, *, is_body_read: bool = False) -> None:
    """Answers before the body is read, then discards what still comes for a few seconds.

    Closing at once would reset the connection, and a client that is still sending would not see the answer.
    """
    headers = dict(scope["headers"])
    has_body = b"content-length" in headers or b"transfer-encoding" in headers
    # a client that expects 100-continue sends nothing after this answer
    if is_body_read or not has_body or b"expect" in headers:
        answer.headers["Connection"] = "close"
        await answer(scope, receive, send)
        return
    await send({"type": "http.response.start", "status": answer.status_code, "headers": answer.raw_headers})
    await send({"type": "http.response.body", "body": bytes(answer.body), "more_body": True})
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_SECONDS):
            while (message := await receive())["type"] == "http.request" and message.get("more_body", False):
                pass
    await send({"type": "http.response.body", "body": b"", "more_body": False})
