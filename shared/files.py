"""Reads and writes files: whole replacements, and JSON lines with their line numbers."""

import codecs
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from pydantic import BaseModel, ValidationError

from shared.errors import InvalidInput, reasons, shorten

Model = TypeVar("Model", bound=BaseModel)


def atomic_write(path: Path, data: bytes | str, *, durable: bool = False, mode: int = 0o666) -> None:
    """Replaces `path` with `data`: a reader sees all of the old content or all of the new.

    With `durable` it also survives a loss of power; `mode` is the file's permissions before the umask.
    """
    with atomic_writer(path, durable=durable, mode=mode) as file:
        file.write(data if isinstance(data, bytes) else data.encode())


@contextmanager
def atomic_writer(path: Path, *, durable: bool = False, mode: int = 0o666) -> Iterator[BinaryIO]:
    """A file that replaces `path` when the block ends; when the block raises, `path` stays as it was."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode), "wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    if durable:
        sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Makes renames in a directory survive a loss of power."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, or in UTF-16 behind its byte order mark; UnicodeDecodeError for any other."""
    return path.read_text(encoding="utf-16" if _is_utf16(path) else "utf-8-sig")


def _is_utf16(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def _lines(path: Path) -> Iterator[bytes | str]:
    """The lines of a file, decoded where it is UTF-16."""
    with path.open(encoding="utf-16") if _is_utf16(path) else path.open("rb") as lines:
        yield from lines


def read_json_lines(
    path: Path, *, broken: list[InvalidInput] | None = None, load: Callable[[str | bytes], Any] = json.loads
) -> Iterator[tuple[str, Any]]:
    """(`file:line`, value) of every line that is not blank. A file is encoded as `read_text` has it.

    InvalidInput for a file that cannot be read, and for a line that is not JSON; given `broken`, that is put there.
    """
    try:
        for number, line in enumerate(_lines(path), start=1):
            text = line.removeprefix(codecs.BOM_UTF8) if number == 1 and isinstance(line, bytes) else line
            if not text.strip():
                continue
            try:
                value = load(text)
            except (ValueError, RecursionError) as error:
                _refuse(f"{path}:{number}: not JSON: {error}; give one JSON object a line", broken, error)
            else:
                yield f"{path}:{number}", value
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path} is not UTF-16, as its first bytes say: {error}; save it as UTF-8") from error
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror}") from error


def read_rows(
    path: Path, model: type[Model], *, broken: list[InvalidInput] | None = None
) -> Iterator[tuple[str, Model]]:
    """(`file:line`, row) of every line, each a `model`. InvalidInput names file, line and field of a wrong one; given
    `broken`, it is put there instead."""
    fields = ", ".join(name for name, field in model.model_fields.items() if field.is_required())
    for where, value in read_json_lines(path, broken=broken):
        try:
            yield where, model.model_validate(value)
        except ValidationError as error:
            _refuse(f"{where}: {shorten(reasons(error))}; a row has the fields {fields}", broken, error)


def _refuse(reason: str, broken: list[InvalidInput] | None, error: Exception) -> None:
    if broken is None:
        raise InvalidInput(reason) from error
    broken.append(InvalidInput(reason))
