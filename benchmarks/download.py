"""What a download over plain HTTP costs both sides: files sent by the kernel and read by a blocking socket, against
httpx and a streamed response.

python -m benchmarks.download            1 GiB, each pair three times, in turn
python -m benchmarks.download --quick    128 MiB, once

The service is a process of its own, on uvloop; the file is in the page cache. Seconds of processor time are those of
each process, kernel included, per 10⁹ bytes; medians.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from statistics import median

import httpx
from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from prometheus_client import CollectorRegistry

from shared.clients.download import download
from shared.runtime.app import create_app
from shared.runtime.client import http_client
from shared.runtime.serve import serve
from shared.runtime.streamed import FileAnswer, FileBody, FileSlice

MEDIA_TYPE = "application/octet-stream"
PIECE_BYTES = 1 << 20
Read = Callable[[str], Awaitable[int]]


def serve_file(path: Path, url_file: Path) -> int:
    router = APIRouter()
    num_bytes = path.stat().st_size

    @asynccontextmanager
    async def hold() -> AsyncIterator[FileBody]:
        yield FileBody([FileSlice(path, 0, num_bytes)], etag="a1")

    async def pieces() -> AsyncIterator[bytes]:
        with path.open("rb") as file:
            while piece := await asyncio.to_thread(file.read, PIECE_BYTES):
                yield piece

    @router.get("/v1/kernel")
    async def by_kernel() -> FileAnswer:
        return FileAnswer(hold(), MEDIA_TYPE)

    @router.get("/v1/streamed")
    async def streamed() -> StreamingResponse:
        return StreamingResponse(pieces(), media_type=MEDIA_TYPE, headers={"Content-Length": str(num_bytes)})

    @router.get("/v1/cpu")
    async def cpu_seconds() -> float:
        return time.process_time()

    app = create_app(
        "benchmark",
        router,
        lifespan=None,
        ready=lambda: None,
        registry=CollectorRegistry(),
        token=None,
        max_body_bytes=1 << 20,
    )
    return serve(app, host="127.0.0.1", port=0, token=None, url_file=url_file)


@contextmanager
def a_service(path: Path) -> Iterator[str]:
    url_file = path.with_suffix(".url")
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.download", "--serve", path, url_file])
    try:
        while not url_file.exists():
            time.sleep(0.05)
        yield url_file.read_text().strip()
    finally:
        process.terminate()
        process.wait()


async def read_by_thread(url: str) -> int:
    num_bytes = 0

    def feed(view: memoryview) -> None:
        nonlocal num_bytes
        num_bytes += len(view)

    async with download(url, name="the service") as answer:
        await answer.read(feed)
    return num_bytes


async def read_by_httpx(url: str) -> int:
    async with http_client(None, 60.0) as client, client.stream("GET", url) as response:
        return sum([len(piece) async for piece in response.aiter_bytes()])


async def measure(read: Read, url: str, path: str) -> tuple[float, float, float]:
    """Processor seconds of the service and of the reader per 10⁹ bytes, and 10⁹ bytes per second."""
    async with httpx.AsyncClient(base_url=url) as client:
        served, started, used = (await client.get("/v1/cpu")).json(), time.monotonic(), time.process_time()
        num_gigabytes = await read(url + path) / 1e9
        seconds, used = time.monotonic() - started, time.process_time() - used
        served = (await client.get("/v1/cpu")).json() - served
    return served / num_gigabytes, used / num_gigabytes, num_gigabytes / seconds


async def compare(url: str, rounds: int) -> None:
    pairs: dict[str, tuple[Read, str]] = {
        "streamed response, httpx": (read_by_httpx, "/v1/streamed"),
        "streamed response, blocking socket": (read_by_thread, "/v1/streamed"),
        "kernel, httpx": (read_by_httpx, "/v1/kernel"),
        "kernel, blocking socket": (read_by_thread, "/v1/kernel"),
    }
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in pairs}
    for _ in range(rounds):
        for name, (read, path) in pairs.items():
            found[name].append(await measure(read, url, path))
    print("| sent by, read by | service CPU-s/GB | reader CPU-s/GB | both | GB/s |\n|---|---|---|---|---|")
    for name, rows in found.items():
        served, used, rate = (median(column) for column in zip(*rows, strict=True))
        print(f"| {name} | {served:.2f} | {used:.2f} | {median(a + b for a, b, _ in rows):.2f} | {rate:.2f} |")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--serve", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        return serve_file(*options.serve)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "weights"
        with path.open("wb") as file:
            for _ in range(128 if options.quick else 1024):
                file.write(os.urandom(1 << 20))
        with a_service(path) as url:
            asyncio.run(compare(url, 1 if options.quick else 3))
    return 0


if __name__ == "__main__":
    sys.exit(main())
