"""A server that answers what no service of ours does: HTML, redirects, floods, silence."""

import contextlib
import socket
import threading
from collections.abc import Iterator

HTML = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 53\r\n\r\n"
    b"<html>\x1b[2J\xe2\x80\xae login of another system, please</html>     "
)
REDIRECT = (
    b"HTTP/1.1 302 Found\r\nLocation: https://user:hunter2@login.example.org/?next=1\r\nContent-Length: 0\r\n\r\n"
)
FLOOD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + b"[" * (8 << 20)
BOMB = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n\x1f\x8b\x08\x00"
DEEP = b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + b"[" * 200_000
LIST = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"
NO_HTTP = b"-ERR unknown command 'GET'\r\n"
HEADERS = b"HTTP/1.1 200 OK\r\n" + b"".join(b"X-%d: y\r\n" % number for number in range(100_000))
SILENCE = b""


@contextlib.contextmanager
def answering(answer: bytes) -> Iterator[int]:
    """Answers every connection so on the port that it yields; an empty answer keeps the connection open."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        kept: list[socket.socket] = []

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                kept.append(connection)
                threading.Thread(target=_answer, args=(connection, answer), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield int(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)
        for connection in kept:
            connection.close()


def _answer(connection: socket.socket, answer: bytes) -> None:
    with contextlib.suppress(OSError):
        connection.recv(4096)
        if answer:
            connection.sendall(answer)
            connection.close()
