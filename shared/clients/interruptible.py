"""A thread that waits on a socket, and whose wait the event loop may end at any time."""

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")
Address = tuple[socket.AddressFamily, socket.SocketKind, int, str, Any]
"""As getaddrinfo gives them."""


class InterruptibleSocket:
    """One connection, and one thread that uses it.

    `run` does blocking work there. Where its caller is cancelled, the connection ends, and with it the wait of the
    thread: when `run` returns or raises, nothing of the work goes on.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "socket")
        self._lock = threading.Lock()
        self._connection: socket.socket | None = None
        self.is_ended = False

    @property
    def connection(self) -> socket.socket:
        if self._connection is None:
            raise ConnectionAbortedError("there is no connection yet")
        return self._connection

    async def run(self, work: Callable[[], T]) -> T:
        turn = self._thread.submit(work)
        try:
            return await asyncio.wrap_future(turn)
        except asyncio.CancelledError:
            self.end()
            await _end_of(turn)
            raise

    def connect(self, addresses: Sequence[Address], within_seconds: float) -> None:
        """To the first address that answers, each in an equal share of the time; else the OSError of the last one."""
        for num_left, (family, kind, protocol, _, address) in zip(
            range(len(addresses) - 1, -1, -1), addresses, strict=True
        ):
            connection = self._hold(partial(socket.socket, family, kind, protocol))
            connection.settimeout(within_seconds / len(addresses))
            try:
                connection.connect(address)
            except OSError:
                if not num_left or self.is_ended:
                    raise
            else:
                return

    def start_tls(self, context: ssl.SSLContext, host: str) -> None:
        wrap = partial(context.wrap_socket, server_hostname=host, do_handshake_on_connect=False)
        secured = self._hold(partial(wrap, self.connection))
        secured.do_handshake()

    def end(self) -> None:
        """Wakes the thread that waits on the connection: it is over."""
        with self._lock:
            self.is_ended = True
            if self._connection is not None:
                with suppress(OSError):
                    # not SSLSocket's own: after it, the thread would read ciphertext as if it were text
                    socket.socket.shutdown(self._connection, socket.SHUT_RDWR)

    def close(self) -> None:
        self.end()
        if self._connection is not None:
            self._connection.close()
        self._thread.shutdown(wait=False)

    def _hold(self, make: Callable[[], "Socket"]) -> "Socket":
        """Makes the connection, in place of the one before it, where `end` finds it."""
        with self._lock:
            if self.is_ended:
                raise ConnectionAbortedError("the connection was ended")
            made, previous = make(), self._connection
            self._connection = made
        if previous is not None:
            previous.close()
        return made


Socket = TypeVar("Socket", bound=socket.socket)


async def _end_of(turn: Future[T]) -> None:
    """Waits for it through any further cancellation; how it ended does not matter."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    turn.add_done_callback(lambda _: loop.call_soon_threadsafe(ended.set))
    while not ended.is_set():
        with suppress(asyncio.CancelledError):
            await ended.wait()
