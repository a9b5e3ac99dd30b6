"""How far a download is, told from the files that grow in the hub's cache."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from shared.runtime.logs import event_logger

log = event_logger(__name__)
_SECONDS, _LOG_SECONDS = 0.5, 10.0


@dataclass(frozen=True, slots=True)
class Download:
    """Of one model's weights; `seconds_left` is None until a rate is known."""

    model: str
    done_bytes: int
    total_bytes: int
    seconds_left: float | None

    @property
    def is_complete(self) -> bool:
        return self.done_bytes >= self.total_bytes

    def __str__(self) -> str:
        left = "" if self.seconds_left is None else f", {self.seconds_left:.0f} s left"
        return f"fetching {self.model}: {self.done_bytes / 1e6:,.0f} of {self.total_bytes / 1e6:,.0f} MB{left}"


DownloadListener = Callable[[Download], object]


@contextmanager
def watch_download(blobs: Path, total_bytes: int, model: str, on_progress: DownloadListener) -> Iterator[None]:
    """Reports, from a thread, how much of `total_bytes` has come to the folder of the cache while the block runs."""
    ended = threading.Event()
    before, began = _size(blobs), time.monotonic()

    def report() -> None:
        come = min(total_bytes, max(0, _size(blobs) - before))
        rate = come / max(time.monotonic() - began, 1e-9)
        on_progress(Download(model, come, total_bytes, (total_bytes - come) / rate if come else None))

    def watch() -> None:
        while not ended.wait(_SECONDS):
            report()

    report()
    thread = threading.Thread(target=watch, name="download", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        report()


def _size(folder: Path) -> int:
    """Of all files, those in the making among them."""
    total = 0
    for path in folder.glob("*") if folder.is_dir() else ():
        try:
            total += path.stat().st_blocks * 512  # a file in the making may have its full length from the start
        except FileNotFoundError:
            continue
    return total


def now_and_then(listener: DownloadListener) -> DownloadListener:
    """Calls the listener every ten seconds, and at the end."""
    last = -_LOG_SECONDS

    def on_progress(download: Download) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _LOG_SECONDS or download.is_complete:
            last = now
            listener(download)

    return on_progress


def log_downloads() -> DownloadListener:
    """Writes a line into the service's log now and then."""
    return now_and_then(
        lambda one: log.info(
            "model_fetched" if one.is_complete else "fetching_model",
            model=one.model,
            done_bytes=one.done_bytes,
            total_bytes=one.total_bytes,
            seconds_left=one.seconds_left,
        )
    )
