"""ASGI's zero-copy send: the kernel moves bytes of files to a connection, and none of them enters Python."""

import asyncio
import errno
import os
import select
import socket
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, cast

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

ZERO_COPY_SEND = "http.response.zerocopysend"
NUM_THREADS = 8
_TURN_BYTES = 32 << 20
_TURN_WAIT_MILLISECONDS = 2
_PIECE_BYTES = 1 << 20


class ZeroCopySend:
    """The app of one connection of uvicorn, with the extension `http.response.zerocopysend`.

    One of `threads` sends while the reader keeps up, some MiB before another connection has its turn; a slow reader is
    waited for on the event loop, and loses its connection once its socket took nothing for `unread_seconds`. A message
    that cannot be sent whole ends the connection: no answer gets a wrong length. Its `on_sent` (not of the extension)
    is told, perhaps in a thread, how many bytes the kernel took.
    """

    def __init__(self, app: ASGIApp, threads: ThreadPoolExecutor, unread_seconds: float) -> None:
        self._app = app
        self._threads = threads
        self._unread_seconds = unread_seconds
        self._in_flight: _FileToSocket | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if sys.platform != "linux" or scope["type"] != "http" or scope["scheme"] != "http":  # the kernel knows no TLS
            await self._app(scope, receive, send)
            return
        scope["extensions"] = {**scope.get("extensions", {}), ZERO_COPY_SEND: {}}
        cycle = cast(Any, send).__self__
        assert isinstance(cycle, RequestResponseCycle)

        async def send_either(message: Message) -> None:
            if message["type"] == ZERO_COPY_SEND and cycle.response_started and not cycle.response_complete:
                await self._send_file(cycle, message)
            else:  # uvicorn refuses what comes out of turn
                await send(message)

        await self._app(scope, receive, send_either)

    def stop(self) -> None:
        """The connection is lost: what is sent over it ends at once."""
        if self._in_flight is not None:
            self._in_flight.stop()

    async def _send_file(self, cycle: RequestResponseCycle, message: Message) -> None:
        if cycle.scope["method"] != "HEAD":
            await self._send_bytes(cycle, message)
        if not message.get("more_body", False):
            await cycle.send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_bytes(self, cycle: RequestResponseCycle, message: Message) -> None:
        file = message["file"]
        descriptor: int = file if isinstance(file, int) else file.fileno()
        offset, count = _span(descriptor, message)
        if not cycle.chunked_encoding and count > cycle.expected_content_length:
            raise RuntimeError("Response content longer than Content-Length")
        if count == 0 or not await self._flush(cycle, b"%x\r\n" % count if cycle.chunked_encoding else b""):
            return
        transfer = _FileToSocket(cycle.transport, descriptor, offset, count, message.get("on_sent", _ignore))
        await self._transfer(cycle, transfer)
        if cycle.disconnected:
            return
        if "offset" not in message:
            os.lseek(descriptor, offset + count, os.SEEK_SET)
        if cycle.chunked_encoding:
            cycle.transport.write(b"\r\n")
        else:
            cycle.expected_content_length -= count

    async def _flush(self, cycle: RequestResponseCycle, last: bytes) -> bool:
        """Hands the kernel all that was written, `last` at its end; False when the connection is lost."""
        transport = cycle.transport
        if not transport.is_closing():
            transport.write(last)
            transport.set_write_buffer_limits(high=0)
            await cycle.flow.drain()
        if transport.is_closing():
            cycle.disconnected = True  # uvicorn knows it of the last request alone, of those sent ahead
        else:
            transport.set_write_buffer_limits()
        return not cycle.disconnected

    async def _transfer(self, cycle: RequestResponseCycle, transfer: "_FileToSocket") -> None:
        """Returns early only when the reader is gone, or was waited for in vain."""
        self._in_flight, turn = transfer, None
        try:
            while transfer.remaining:
                turn = self._threads.submit(transfer.take_turn)
                if not await asyncio.wrap_future(turn):
                    await _writable(transfer.socket, self._unread_seconds)
        except (ConnectionError, TimeoutError):
            cycle.disconnected = True
        finally:
            self._in_flight = None
            if transfer.remaining:
                transfer.stop()
                cycle.transport.abort()
            _after(turn, transfer.close)


class _FileToSocket:
    """What of a file is still to be sent over a connection.

    The connection has a descriptor of its own here: a thread may still use it when uvicorn has closed its own, whose
    number then is another's. The file needs none: who closes it stops the connection before, and then nothing is sent.
    """

    def __init__(
        self, transport: asyncio.Transport, file: int, offset: int, count: int, on_sent: Callable[[int], None]
    ) -> None:
        self.remaining = self._count = count
        self.socket = socket.socket(fileno=os.dup(transport.get_extra_info("socket").fileno()))
        self._file = file
        self._offset = offset
        self._on_sent = on_sent

    def take_turn(self) -> bool:
        """Sends while the socket takes it; False when it takes no more for now."""
        writable = select.poll()
        writable.register(self.socket, select.POLLOUT)
        allowed = _TURN_BYTES
        while self.remaining and allowed > 0:
            try:
                num_sent = self._send(min(self.remaining, allowed))
            except BlockingIOError:
                if not writable.poll(_TURN_WAIT_MILLISECONDS):
                    return False
                continue
            if num_sent == 0:
                raise EOFError(f"a file ends {self.remaining} bytes before what was to be sent of it")
            self._offset += num_sent
            self.remaining -= num_sent
            allowed -= num_sent
        return True

    def _send(self, num_bytes: int) -> int:
        """How many bytes the kernel took; 0 at the end of the file."""
        try:
            return os.sendfile(self.socket.fileno(), self._file, self._offset, num_bytes)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
        # a file system whose files the kernel cannot send
        piece = os.pread(self._file, min(num_bytes, _PIECE_BYTES), self._offset)
        return self.socket.send(piece) if piece else 0

    def stop(self) -> None:
        """Ends the connection, and with it a turn in progress."""
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:  # the other side was faster
            return

    def close(self) -> None:
        """Once no thread uses it."""
        self.socket.close()
        self._on_sent(self._count - self.remaining)


def _span(descriptor: int, message: Message) -> tuple[int, int]:
    """Where the bytes of a message begin in its file, and how many they are."""
    offset = message["offset"] if "offset" in message else os.lseek(descriptor, 0, os.SEEK_CUR)
    count = message["count"] if "count" in message else max(0, os.fstat(descriptor).st_size - offset)
    return offset, count


async def _writable(connection: socket.socket, within_seconds: float) -> None:
    """Returns when the socket takes bytes, or is closed; TimeoutError when it does not."""
    loop = asyncio.get_running_loop()
    is_writable = asyncio.Event()
    loop.add_writer(connection.fileno(), is_writable.set)
    try:
        async with asyncio.timeout(within_seconds):
            await is_writable.wait()
    finally:
        loop.remove_writer(connection.fileno())


def _ignore(num_bytes: int) -> None:
    """For whoever does not count."""


def _after(turn: Future[bool] | None, deed: Callable[[], None]) -> None:
    """Does it when the turn has ended: at once, or in its thread."""
    if turn is None:
        deed()
    else:
        turn.add_done_callback(lambda _: deed())
