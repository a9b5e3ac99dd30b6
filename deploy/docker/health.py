#!/opt/ibtpo/bin/python -SE
"""The health check of a container: `ibtpo-health PORT PATH` exits 0 if the service answers 200."""

import socket
import sys


def answer(port: int, path: str) -> bytes:
    """The first bytes of the service's answer, by IPv4 or IPv6."""
    with socket.create_connection(("localhost", port), timeout=2) as connection:
        connection.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        return connection.recv(512)


if __name__ == "__main__":
    sys.exit(0 if b" 200 " in answer(int(sys.argv[1]), sys.argv[2]).split(b"\r\n", 1)[0] else 1)
