"""Reads rows of parquet files and of folders that `datasets` saved; needs the extra `data`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from services.learner.data.reading.rows import Placed
from shared.errors import InvalidInput

_BATCH = 1000


def import_datasets() -> Any:
    """The library `datasets`; InvalidInput where it is not installed."""
    try:
        import datasets
    except ImportError as error:
        raise missing_extra("datasets") from error
    return datasets


def missing_extra(library: str) -> InvalidInput:
    return InvalidInput(f"this data needs {library}, which is not installed: pip install 'ibtpo[data]'")


def count_parquet_rows(path: Path) -> int:
    return int(_open_parquet(path).metadata.num_rows)


def read_parquet(path: Path) -> Iterator[Placed]:
    """The rows of a file, some at a time. InvalidInput for a file that is broken."""
    file, number = _open_parquet(path), 0
    try:
        for batch in file.iter_batches(batch_size=_BATCH):
            for row in batch.to_pylist():
                number += 1
                yield f"{path.name} row {number}", row
    except (OSError, ValueError) as error:  # pyarrow's errors are one of them
        raise InvalidInput(f"{path} is broken after row {number}: {_first_line(error)}; fetch it again") from error


def _open_parquet(path: Path) -> Any:
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise missing_extra("pyarrow") from error
    try:
        return ParquetFile(path)
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{path} is no whole parquet file: {_first_line(error)}; fetch or write it again") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(". ")


def load_saved(path: Path, split: str | None) -> Any:
    """A data set that `save_to_disk` wrote. InvalidInput for a folder that is none, and for a split it lacks."""
    datasets = import_datasets()
    try:
        found = datasets.load_from_disk(str(path))
    except (OSError, ValueError, KeyError) as error:
        raise InvalidInput(f"{path} is no whole data set of `datasets`: {_first_line(error)}; save it again") from error
    return choose_split(found, split, str(path))


def choose_split(found: Any, split: str | None, name: str) -> Any:
    """The split that is named, or the only one."""
    if not isinstance(found, dict):
        if split not in (None, "", str(found.split)):
            raise InvalidInput(f"{name} has no splits, and #{split} is given: leave it out")
        return found
    if split is None and len(found) == 1:
        return next(iter(found.values()))
    splits = ", ".join(found)
    if split is None:
        raise InvalidInput(f"{name} has the splits {splits}: name one, as {name}#{next(iter(found))}")
    if split not in found:
        raise InvalidInput(f"{name} has no split {split!r}; it has {splits}")
    return found[split]


def iterate(dataset: Any, name: str) -> Iterator[Placed]:
    """The rows of a data set of `datasets`, as they are stored: nothing is decoded or downloaded."""
    number = 0
    try:
        for table in dataset.with_format("arrow").iter(batch_size=_BATCH):
            for row in table.to_pylist():
                number += 1
                yield f"row {number}", row
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{name} is broken after row {number}: {_first_line(error)}; save it again") from error
