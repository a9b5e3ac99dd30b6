"""Judges a file of answers, with a running verifier or one in this process."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from services.verifier.config import VerifierConfig
from services.verifier.json_items import cut_batch
from services.verifier.surrogates import NOT_TEXT, is_text, load_json, make_text
from services.verifier.wiring import build
from shared.clients import VerifierClient
from shared.errors import (
    DeadlineExceeded,
    IbtpoError,
    InvalidInput,
    MalformedAnswer,
    Overloaded,
    TooLarge,
    Unavailable,
    Unreachable,
    first_reason,
)
from shared.files import atomic_writer, read_json_lines
from shared.protocol.verdict import Outcome, Verdict, VerdictItem, explain_no_answers
from shared.runtime.client import http_client

_MAX_BATCH_ITEMS = 256
_MAX_BATCH_CHARACTERS = 2 << 20
_MAX_ROW_BYTES = 64 << 20
_CONCURRENT_REQUESTS = 4
_DEADLINE_SECONDS = 600.0
_MAX_ATTEMPTS = 30
_RETRY_SECONDS = 1.0
_LINE_SECONDS = 10.0
"""Without a terminal, which has a bar, a line says now and then how far it is."""
_NOT_JUDGED = "not judged"
_WITHOUT_REWARD = {_NOT_JUDGED, *(outcome.value for outcome in Outcome if not outcome.is_judged)}
_COLUMNS = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())


def judge_file(
    input: Path, output: Path, url: str | None = None, token: str | None = None, console: Console | None = None
) -> int:
    """Judges the rows `{id, kind, response, answer_key}` of a file, with the verifier at `url` or one in this process.

    Writes one verdict a line to `output`, in the order of the rows; a row that cannot be judged has an `error`.
    Returns 0, or 1 if a row has no reward.
    """
    return asyncio.run(_judge_file(input, output, _open_client(url, token), console or Console(stderr=True)))


async def _judge_file(
    input: Path, output: Path, opening: AbstractAsyncContextManager[VerifierClient], console: Console
) -> int:
    num_rows = _count_rows(input)
    tally: Counter[str] = Counter()
    said = time.monotonic()
    async with opening as client:
        with Progress(*_COLUMNS, console=console) as progress, atomic_writer(output) as file:
            bar = progress.add_task("judging", total=num_rows)
            async for rows in _judge_in_order(client, _make_batches(input)):
                file.writelines(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)
                tally.update(row.get("outcome", _NOT_JUDGED) for row in rows)
                progress.advance(bar, len(rows))
                if not console.is_terminal and time.monotonic() - said >= _LINE_SECONDS:
                    said = time.monotonic()
                    console.print(f"{tally.total()} of {num_rows} rows are judged", highlight=False)
    counts = ", ".join(f"{count} {outcome.replace('_', ' ')}" for outcome, count in sorted(tally.items()))
    console.print(f"{num_rows} rows: {counts}", highlight=False)
    if remark := explain_no_answers(tally[Outcome.NO_ANSWER.value], num_rows):
        console.print(remark, highlight=False, markup=False)
    return 1 if tally.keys() & _WITHOUT_REWARD else 0


@asynccontextmanager
async def _open_client(url: str | None, token: str | None) -> AsyncIterator[VerifierClient]:
    """A client of the verifier at `url`, or of one that lives in this process until the block ends."""
    if url is not None:
        async with http_client(token, _DEADLINE_SECONDS) as http:
            yield VerifierClient(http, url)
        return
    app = build(VerifierConfig(max_body_bytes=_MAX_ROW_BYTES))  # nobody else waits while it reads one
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app)) as http,
    ):
        yield VerifierClient(http, "http://localhost")


# --- rows


# An item, or the output of a row that is none.
_Row = VerdictItem | dict[str, Any]


def _count_rows(path: Path) -> int:
    """The number of rows. InvalidInput for a file in which no row is an item."""
    num_rows, has_item, first_error = 0, False, f"{path} has no rows; it should have one JSON object a line"
    for row in _read_rows(path):
        if isinstance(row, VerdictItem) or row["error"] == NOT_TEXT:
            has_item = True
        elif num_rows == 0:
            first_error = row["error"]
        num_rows += 1
    if not has_item:
        raise InvalidInput(first_error)
    return num_rows


def _read_rows(path: Path) -> Iterator[_Row]:
    """The rows in their order, also those that are no JSON."""
    broken: list[InvalidInput] = []
    for where, row in read_json_lines(path, broken=broken, load=_load_row):
        yield from map(_to_broken_row, broken)
        broken.clear()
        yield _to_item(where, row)
    yield from map(_to_broken_row, broken)


def _load_row(line: str | bytes) -> Any:
    """The value of a line; of one that is too deep to be read, what is not nested, so that it can be named."""
    data = line.encode("utf-8", "surrogatepass") if isinstance(line, str) else line
    try:
        return load_json(data)
    except RecursionError:
        *_, cut = cut_batch(b'{"items": [' + data + b"]}", 1)
        return {**load_json(cut.items[0].outline), "answer_key": "nested too deep"} if cut else None


def _to_broken_row(error: InvalidInput) -> _Row:
    line = str(error).partition(": not JSON")[0].rpartition(":")[2]
    return _bad_row(line, str(error))


def _make_batches(path: Path) -> Iterator[list[_Row]]:
    batch: list[_Row] = []
    size = 0
    for item in _read_rows(path):
        length = len(item.response) if isinstance(item, VerdictItem) else 0
        if batch and (len(batch) == _MAX_BATCH_ITEMS or size + length > _MAX_BATCH_CHARACTERS):
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += length
    if batch:
        yield batch


def _to_item(where: str, row: Any) -> _Row:
    """The item of a row. Test sets may have `payload` for the response, and `gold` or `tests` instead of a key."""
    line, wanted = where.rpartition(":")[2], "a row is a JSON object with id, kind, response, answer_key"
    if not isinstance(row, dict):
        return _bad_row(line, f"{where}: a {type(row).__name__}; {wanted}")
    try:
        key = (
            row["answer_key"] if "answer_key" in row else {name: row[name] for name in ("gold", "tests") if name in row}
        )
        response = row["response"] if "response" in row else row["payload"]
        row_id = str(row.get("id", line))
        if not is_text(row):
            return _bad_row(row_id, NOT_TEXT)
        prompt = row.get("prompt")  # chat messages are no rendered text
        prompt = prompt if isinstance(prompt, str) else ""
        return VerdictItem(id=row_id, kind=row["kind"], response=response, answer_key=key, prompt=prompt)
    except KeyError as error:
        return _bad_row(row.get("id", line), f"{where}: no {error}; {wanted}")
    except ValidationError as error:
        return _bad_row(row_id, f"{where}: {first_reason(error)}; {wanted}")


def _bad_row(row_id: object, error: str) -> dict[str, Any]:
    return {"id": make_text(str(row_id)), "reward": None, "error": make_text(error)}


# --- requests


async def _judge_in_order(client: VerifierClient, batches: Iterator[list[_Row]]) -> AsyncIterator[list[dict[str, Any]]]:
    """The rows of each batch, in order, with a few requests in flight."""
    in_flight: list[asyncio.Task[list[dict[str, Any]]]] = []
    try:
        for batch in batches:
            in_flight.append(asyncio.create_task(_judge_batch(client, batch)))
            if len(in_flight) == _CONCURRENT_REQUESTS:
                yield await in_flight.pop(0)
        while in_flight:
            yield await in_flight.pop(0)
    finally:
        for task in in_flight:
            task.cancel()
        await asyncio.gather(*in_flight, return_exceptions=True)


async def _judge_batch(client: VerifierClient, batch: Sequence[_Row]) -> list[dict[str, Any]]:
    items = [row for row in batch if isinstance(row, VerdictItem)]
    judged = iter(await _judge_items(client, items) if items else ())
    return [next(judged) if isinstance(row, VerdictItem) else row for row in batch]


async def _judge_items(client: VerifierClient, batch: Sequence[VerdictItem]) -> list[dict[str, Any]]:
    """The verdicts of a batch. If it is refused, its halves are sent, so that only the cause is unjudged."""
    try:
        return [verdict.model_dump(mode="json") for verdict in await _judge_with_retries(client, batch)]
    except (Unreachable, DeadlineExceeded, MalformedAnswer):
        raise
    except (InvalidInput, TooLarge, Unavailable) as error:
        if len(batch) == 1:
            return [{"id": batch[0].id, "reward": None, "error": str(error)}]
        half = len(batch) // 2
        return [*await _judge_items(client, batch[:half]), *await _judge_items(client, batch[half:])]


async def _judge_with_retries(client: VerifierClient, batch: Sequence[VerdictItem]) -> Sequence[Verdict]:
    for _ in range(_MAX_ATTEMPTS):
        try:
            return await client.judge(batch, _DEADLINE_SECONDS + 10, _DEADLINE_SECONDS)
        except Overloaded:
            await asyncio.sleep(_RETRY_SECONDS)
    raise IbtpoError(f"the verifier was overloaded for {_MAX_ATTEMPTS * _RETRY_SECONDS:g} s; try again later")
