"""Opens a source: which reader its name asks for."""

import re
from collections.abc import Iterator
from pathlib import Path

from services.learner.data.reading.hub import load_hub
from services.learner.data.reading.rows import Placed, RowStream
from services.learner.data.reading.tables import count_parquet_rows, iterate, load_saved, read_parquet
from services.learner.data.reading.text import TABLES, read_text_rows, stem_of, suffix_of
from services.learner.data.source import DataSource
from shared.errors import InvalidInput

_TEXT = (".jsonl", ".json", ".ndjson", *TABLES)
_FILES = (*_TEXT, ".parquet")
_PACKED = (".zst", ".zip", ".xz", ".bz2", ".tar", ".7z")
_SPLIT = re.compile(r"(?:^|[-_./])(train|test|validation|valid|val|dev)(?=$|[-_.\d])", re.IGNORECASE)


def open_rows(source: DataSource) -> RowStream:
    """The rows of a source. InvalidInput for one that cannot be read, with what to give instead."""
    if source.hub:
        dataset = load_hub(source.hub)
        name = source.hub.name.rpartition("/")[2]
        return RowStream(name, iterate(dataset, source.source), dataset.num_rows)
    path, split = source.path, source.split
    if not path.exists():
        raise InvalidInput(f"there is no {path}{_suggest_hub(source)}")
    if path.is_file():
        if split:
            raise InvalidInput(f"{path} is one file and has no splits: leave out #{split}")
        return _open_files([path], stem_of(path))
    if (path / "dataset_info.json").exists() or (path / "dataset_dict.json").exists():
        dataset = load_saved(path, split)
        return RowStream(path.name, iterate(dataset, source.source), dataset.num_rows)
    return _open_files(_files_of(path, split), path.name)


def _suggest_hub(source: DataSource) -> str:
    name = source.source
    looks_like_one = re.fullmatch(r"[\w.-]+/[\w.-]+(?::\S+)?(?:#\S+)?", name) and not name.endswith(_FILES)
    return f"; a data set of the hub is written hf:{name}" if looks_like_one else ""


def _open_files(paths: list[Path], name: str) -> RowStream:
    packed = next((path for path in paths if path.suffix in _PACKED), None)
    if packed:
        raise InvalidInput(f"{packed} is packed: unpack it, or pack it with gzip")
    for path in paths:
        _refuse_misnamed(path)
    are_parquet = all(suffix_of(path) == ".parquet" for path in paths)
    total = sum(map(count_parquet_rows, paths)) if are_parquet else None
    return RowStream(name, _read_files(paths), total)


def _refuse_misnamed(path: Path) -> None:
    """InvalidInput for a file that begins as one of another kind does."""
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror or error}") from error
    if start == b"PK\3\4":
        raise InvalidInput(f"{path} is a zip archive or a workbook: unpack it, or save it as .csv")
    if start == b"PAR1" and suffix_of(path) != ".parquet":
        raise InvalidInput(f"{path} is a parquet file: name it so, with .parquet at its end")
    if start[:2] == b"\x1f\x8b" and path.suffix != ".gz":
        raise InvalidInput(f"{path} is packed with gzip: name it so, with .gz at its end")


def _read_files(paths: list[Path]) -> Iterator[Placed]:
    for path in paths:
        yield from read_parquet(path) if suffix_of(path) == ".parquet" else read_text_rows(path)


def _files_of(folder: Path, split: str | None) -> list[Path]:
    """The data files of a folder, of one split where they are named by split."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and suffix_of(path) in _FILES)
    files = [path for path in files if not any(part.startswith(".") for part in path.relative_to(folder).parts)]
    if not files:
        raise InvalidInput(f"{folder} holds no data: give a folder of {', '.join(_FILES)} files, or of `save_to_disk`")
    by_split: dict[str, list[Path]] = {}
    for path in files:
        found = _SPLIT.search(str(path.relative_to(folder)))
        by_split.setdefault(found[1].lower() if found else "", []).append(path)
    if split is None and len(by_split) == 1:
        return files
    named = ", ".join(filter(None, by_split))
    if split is None:
        raise InvalidInput(f"{folder} holds the splits {named}: name one, as {folder}#{named.partition(',')[0]}")
    if split not in by_split:
        raise InvalidInput(f"{folder} has no files of a split {split!r}; it has {named or 'none'}")
    return by_split[split]
