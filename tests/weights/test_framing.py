"""A bundle on its way from disk: whoever takes it may leave at any moment."""

import asyncio
import contextlib
import gc
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from shared.tree.draw import WeightVersion
from shared.weights import stream_bundle, write_manifest


class TellingExecutor(ThreadPoolExecutor):
    """One thread, which says when it has begun."""

    def __init__(self) -> None:
        super().__init__(1)
        self.has_begun = threading.Event()

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        def begin() -> Any:
            self.has_begun.set()
            return function(*args, **kwargs)

        return super().submit(begin)


async def test_a_file_that_is_being_opened_while_its_reader_leaves_is_closed(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    manifest = write_manifest("r", tmp_path, WeightVersion(1, 0))
    (tmp_path / "model.safetensors").unlink()
    os.mkfifo(tmp_path / "model.safetensors")  # to open it lasts until somebody writes to it
    executor = TellingExecutor()
    asyncio.get_running_loop().set_default_executor(executor)
    async with contextlib.aclosing(stream_bundle(manifest, tmp_path)) as chunks:
        await anext(chunks)
        reading = asyncio.ensure_future(anext(chunks))
        while not executor.has_begun.is_set():
            await asyncio.sleep(0)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
    with (tmp_path / "model.safetensors").open("wb"):
        executor.shutdown()
    gc.collect()  # an open file would be warned of, and a warning is an error here
