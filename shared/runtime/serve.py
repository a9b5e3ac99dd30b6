"""Serves an app over HTTP until it is told to end, and drains it; only loopback may be served without a token."""

import asyncio
import errno
import ipaddress
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from shared.errors import Conflict, InvalidInput
from shared.files import atomic_write
from shared.runtime.config import with_port
from shared.runtime.connections import BoundedConnection, ConnectionLimits
from shared.runtime.drain import Drain, ExitCode
from shared.runtime.logs import event_logger
from shared.runtime.middleware import is_loopback
from shared.runtime.zero_copy import NUM_THREADS

log = event_logger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_BACKLOG = 1024
_CLOSE_SECONDS = 10.0


def serve(
    app: FastAPI, *, host: str, port: int, token: str | None, grace_seconds: float = 30.0, url_file: Path | None = None
) -> int:
    """Serves `app` until SIGTERM, SIGINT or `app.state.drain.begin()`; returns the process's exit code (ExitCode).

    Port 0 picks a free one. The URL is logged as the event `listening` and, where given, written to `url_file`.
    """
    config = uvicorn.Config(app, log_config=None)
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        return runner.run(_serve_until_drained(app, open_listener(host, port, token), grace_seconds, url_file))


async def _serve_until_drained(
    app: FastAPI, listener: socket.socket, grace_seconds: float, url_file: Path | None
) -> int:
    drain: Drain = app.state.drain
    is_up = asyncio.Event()
    with _drain_on_signals(drain, is_up):
        try:
            async with serve_in_background(app, listener, url_file):
                is_up.set()
                await drain.begun.wait()
                log.info("draining", grace_seconds=grace_seconds, requests_in_flight=drain.num_requests)
                code = await drain.finish(grace_seconds)
        except asyncio.CancelledError:
            if is_up.is_set():
                raise
            log.info("ended_while_starting")
            return ExitCode.INTERRUPTED
        except (InvalidInput, Conflict) as error:
            log.error("cannot_start", error=str(error))
            return ExitCode.STARTUP_FAILED
        except Exception:  # the border of the process: the log gets it, the exit code says so
            log.exception("service_failed")
            return ExitCode.STARTUP_FAILED
    log.info("exited", code=int(code))
    return code


@contextmanager
def _drain_on_signals(drain: Drain, is_up: asyncio.Event) -> Iterator[None]:
    """The first signal begins the drain, or cancels this task while the service starts; the second ends the grace;
    the third kills the process."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()

    def on_signal() -> None:
        drain.begin()
        if drain.hurry.is_set():
            remove_handlers()
        if task is not None and not is_up.is_set():
            task.cancel()

    def remove_handlers() -> None:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)

    for number in _SIGNALS:
        loop.add_signal_handler(number, on_signal)
    try:
        yield
    finally:
        remove_handlers()


@asynccontextmanager
async def serve_in_background(
    app: FastAPI, listener: socket.socket, url_file: Path | None = None, limits: ConnectionLimits | None = None
) -> AsyncIterator[str]:
    """Serves `app` on an open socket while the block runs, and gives its URL, which is also `app.state.url`.

    The app's own lifespan surrounds the serving, in the caller's task.
    """
    app.state.url = url = url_of(listener)
    with listener, ThreadPoolExecutor(NUM_THREADS, "zero-copy") as threads:
        connection = partial(BoundedConnection, limits=limits or ConnectionLimits(), threads=threads)
        server = _Server(
            uvicorn.Config(
                app,
                http=connection,  # type: ignore[arg-type]
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=1,
            )
        )
        async with app.router.lifespan_context(app):
            task = asyncio.create_task(server.serve(sockets=[listener]), name="uvicorn")
            try:
                _publish_url(url_file, url)
                log.info("listening", url=url)
                yield url
            finally:
                server.should_exit = True
                await asyncio.wait({task}, timeout=_CLOSE_SECONDS)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                _publish_url(url_file, None)


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: the drain decides when it ends, and with what code."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Captures none."""
        yield


def open_listener(host: str, port: int, token: str | None) -> socket.socket:
    """A listening socket; on `::` it takes IPv4 too. InvalidInput for an open one beyond loopback, Conflict when the
    port is taken."""
    require_token_beyond_loopback(host, token)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise InvalidInput(f"host {host!r} is no address of this machine: {error.strerror}") from error
    try:
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        if host == "::" and error.errno == errno.EAFNOSUPPORT:
            return open_listener("0.0.0.0", port, token)  # noqa: S104 - as asked: on all addresses, here of IPv4 alone
        raise
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if host == "::":
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    try:
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise Conflict(
            f"cannot listen on {with_port(host, port)}: {error.strerror}; choose another port, or 0 for a free one"
        ) from error
    listener.setblocking(False)
    return listener


def require_token_beyond_loopback(host: str, token: str | None) -> None:
    """InvalidInput for a service without a token that other machines could reach."""
    if not token and not is_loopback(host):
        raise InvalidInput(
            f"refusing to listen on {host!r} without a token: anyone who reaches it could change weights, trees and "
            "verdicts. Set IBTPO_TOKEN (or token=…) to a secret shared by all services, or listen on 127.0.0.1"
        )


def url_of(listener: socket.socket) -> str:
    """The URL at which this machine itself reaches the listening socket."""
    host, port = listener.getsockname()[:2]
    if ipaddress.ip_address(host).is_unspecified:
        host = "127.0.0.1" if listener.family == socket.AF_INET else "::1"
    return f"http://{with_port(host, port)}"


def _publish_url(url_file: Path | None, url: str | None) -> None:
    """Writes the URL where a launcher waits for it; removes it when the URL is None."""
    if url_file is None:
        return
    if url is None:
        url_file.unlink(missing_ok=True)
    else:
        atomic_write(url_file, url)
