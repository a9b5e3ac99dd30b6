"""Reads rows of text files: JSON lines, JSON arrays, CSV; plain or gzip, UTF-8 or UTF-16."""

import codecs
import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from services.learner.data.reading.rows import BrokenRow, Placed, Row, place
from shared.errors import InvalidInput

_CHUNK = 1 << 20
_DELIMITERS = ",;\t|"
_DECODER = json.JSONDecoder()
TABLES = (".csv", ".tsv")


def stem_of(path: Path) -> str:
    """The name of a file without its endings."""
    return path.name.removesuffix(".gz").rpartition(".")[0] or path.name


def suffix_of(path: Path) -> str:
    """The ending that says what is in a file: .csv of rows.csv.gz."""
    return Path(path.name.removesuffix(".gz")).suffix.lower()


def read_text_rows(path: Path) -> Iterator[Placed]:
    """The rows of a file. InvalidInput for one that cannot be read as a whole."""
    try:
        if suffix_of(path) in TABLES:
            yield from _read_csv(path)
        elif holds_json_array(path):
            yield from _read_json_array(path)
        else:
            yield from _read_json_lines(path)
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path} is neither UTF-8 nor UTF-16: {error}; save it as UTF-8") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InvalidInput(f"{path} is not a whole gzip file: {error}; fetch it again") from error
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror or error}") from error


_NAMES_OF_ROWS = ("data", "rows", "examples", "items", "instances", "problems", "questions", "train", "test")


def holds_json_array(path: Path) -> bool:
    """Whether a file holds one JSON value instead of a value per line: an array, or an object around one."""
    with _open(path) as file:
        first = next((line for line in file if line.strip()), "").strip()
        rest = next((line for line in file if line.strip()), "")
    if first.startswith("["):
        return True
    if not rest:
        return _is_object_around_array(first)
    return first.startswith("{") and not _is_json(first) and not rest.lstrip().startswith("{")


def _is_object_around_array(text: str) -> bool:
    """Whether a file's only line is such as `{"version": 1, "data": [{…}, {…}]}`, and no row that has messages."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    rows = next((value[name] for name in _NAMES_OF_ROWS if name in value), None) if isinstance(value, dict) else None
    return isinstance(rows, list) and bool(rows) and all(isinstance(row, dict) for row in rows)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


@contextmanager
def _open(path: Path) -> Iterator[IO[str]]:
    """The text of a file, in lines that end with a line feed alone."""
    with path.open("rb") as plain:
        buffered: Any = io.BufferedReader(gzip.GzipFile(fileobj=plain)) if path.suffix == ".gz" else plain
        marks = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        encoding = "utf-16" if buffered.peek(2)[:2] in marks else "utf-8-sig"
        yield io.TextIOWrapper(buffered, encoding=encoding, errors="surrogateescape", newline="\n")


def _read_json_lines(path: Path) -> Iterator[Placed]:
    with _open(path) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            where = f"{path.name}:{number}"
            try:
                line.encode()
                yield place(json.loads(line), where)
            except UnicodeEncodeError:
                yield where, BrokenRow("is not UTF-8")
            except (ValueError, RecursionError) as error:
                yield where, BrokenRow(f"is no JSON ({error})")


def _read_json_array(path: Path) -> Iterator[Placed]:
    with _open(path) as file:
        start = _skip_space(file)
        if start == "{":
            yield from _read_json_object(path, start + file.read())
            return
        for number, value in enumerate(_elements(path, file), start=1):
            yield place(value, f"{path.name} element {number}")


def _skip_space(file: IO[str]) -> str:
    while (character := file.read(1)).isspace():
        pass
    return character


def _elements(path: Path, file: IO[str]) -> Iterator[Any]:
    """The elements of an array whose bracket is read, a piece of the file at a time."""
    buffer, size = "", _CHUNK
    while True:
        buffer = buffer.lstrip(" \t\r\n,")
        if buffer.startswith("]"):
            return
        try:
            value, end = _DECODER.raw_decode(buffer)
            if end == len(buffer):  # a number may go on
                raise json.JSONDecodeError("cut", buffer, end)
        except (json.JSONDecodeError, RecursionError) as error:
            piece = file.read(size)
            if not piece:
                raise InvalidInput(f"{path} breaks off, or is no JSON: {error}; fetch or write it again") from error
            buffer, size = buffer + piece, size * 2
        else:
            buffer, size = buffer[end:], _CHUNK
            yield value


def _read_json_object(path: Path, text: str) -> Iterator[Placed]:
    """The one list of rows in an object, such as {"data": […]}."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{path} breaks off, or is no JSON: {error}; fetch or write it again") from error
    lists = {
        name: rows for name, rows in value.items() if isinstance(rows, list) and rows and isinstance(rows[0], dict)
    }
    if len(lists) != 1:
        raise InvalidInput(
            f"{path} is one JSON object with {', '.join(list(value)[:8])}; give an array of rows, or one row a line"
        )
    ((name, rows),) = lists.items()
    for number, row in enumerate(rows, start=1):
        yield place(row, f"{path.name} {name} {number}")


def _read_csv(path: Path) -> Iterator[Placed]:
    csv.field_size_limit(1 << 30)  # a row of code tests is longer than the module's own limit
    with _open(path) as file:
        first = file.readline()
        reader = csv.reader(_chain(first, file), delimiter=_find_delimiter(first), strict=True)
        header = _read_header(path, reader)
        while True:
            where = f"{path.name}:{reader.line_num + 1}"
            try:
                cells = next(reader, None)
            except csv.Error as error:
                yield where, BrokenRow(f"is no CSV ({error})")
                continue
            if cells is None:
                return
            if cells:
                yield where, _make_row(header, cells)


def _chain(first: str, file: IO[str]) -> Iterator[str]:
    yield first
    yield from file


def _read_header(path: Path, reader: Iterator[list[str]]) -> list[str]:
    header = [name.strip() for name in next(reader, [])]
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise InvalidInput(f"{path}: the column {twice[0]!r} comes twice in the first line; give each its own name")
    return header


def _make_row(header: list[str], cells: list[str]) -> Row | BrokenRow:
    if len(cells) != len(header):
        return BrokenRow("has more or fewer fields than the first line")
    if any("\udc80" <= letter <= "\udcff" for cell in cells for letter in cell):
        return BrokenRow("is not UTF-8")
    return dict(zip(header, cells, strict=True))


def _find_delimiter(header: str) -> str:
    """What parts the header's columns: the character that makes most of them."""
    return max(_DELIMITERS, key=lambda one: len(next(csv.reader([header], delimiter=one), [])))
