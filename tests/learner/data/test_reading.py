"""Readers: every form of file, and files that are broken, of another encoding, or not there."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from datasets import Dataset, DatasetDict, disable_progress_bars

from services.learner.data.reading.opening import open_rows
from services.learner.data.reading.rows import BrokenRow
from services.learner.data.source import DataSource
from shared.errors import InvalidInput

ROWS = [{"q": "How much is 1 + 1?\nSay, “two”.", "a": "2"}, {"q": "1, 2; 3", "a": "6"}]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
CSV = 'q,a\n"How much is 1 + 1?\nSay, “two”.",2\n"1, 2; 3",6\n'


@pytest.fixture(autouse=True)
def _quiet() -> None:
    disable_progress_bars()


def read(source: Path | str) -> list[dict[str, Any] | BrokenRow]:
    return [row for _, row in open_rows(DataSource(source=str(source))).rows]


def reasons(path: Path) -> list[str]:
    return [row.reason if isinstance(row, BrokenRow) else "" for row in read(path)]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.jsonl", LINES.encode()),
        ("rows.json", LINES.encode()),
        ("rows.json", json.dumps(ROWS).encode()),
        ("rows.jsonl", json.dumps(ROWS, indent=1).encode()),
        ("rows.json", json.dumps({"version": 1, "data": ROWS}, indent=1).encode()),
        ("rows.json", json.dumps({"version": 1, "data": ROWS}).encode()),
        ("rows.jsonl", b"\xef\xbb\xbf\n" + LINES.encode()),
        ("rows.jsonl", LINES.encode("utf-16")),
        ("rows.jsonl", LINES.replace("\n", "\r\n").encode()),
        ("rows.jsonl.gz", gzip.compress(LINES.encode(), mtime=0)),
        ("rows.csv", CSV.encode()),
        ("rows.csv", b"\xef\xbb\xbf" + CSV.encode()),
        ("rows.csv", CSV.encode("utf-16")),
        ("rows.csv.gz", gzip.compress(CSV.encode(), mtime=0)),
        ("rows.tsv", CSV.replace("q,a", "q\ta").replace('",', '"\t').encode()),
        ("rows.csv", CSV.replace("q,a", "q;a").replace('",', '";').encode()),
    ],
)
def test_every_form_of_text_gives_the_same_rows(name: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert read(path) == ROWS


def test_parquet_and_saved_data_sets_give_the_same_rows(tmp_path: Path) -> None:
    table = pyarrow.Table.from_pylist(ROWS)
    pyarrow.parquet.write_table(table, tmp_path / "rows.parquet")
    stream = open_rows(DataSource(source=str(tmp_path / "rows.parquet")))
    assert (stream.total, [row for _, row in stream.rows]) == (2, ROWS)
    one = Dataset(table)
    one.save_to_disk(tmp_path / "one")
    DatasetDict({"train": one, "test": one}).save_to_disk(tmp_path / "two")
    assert read(tmp_path / "one") == read(f"{tmp_path / 'two'}#test") == ROWS


def test_a_folder_of_files_is_read_by_split(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name in ("train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl", "test-00000-of-00001.jsonl"):
        (tmp_path / "data" / name).write_text(json.dumps({"q": name}) + "\n")
    assert len(read(f"{tmp_path}#train")) == 2
    with pytest.raises(InvalidInput, match=r"holds the splits test, train: name one, as .*#test"):
        read(tmp_path)
    with pytest.raises(InvalidInput, match=r"no files of a split 'dev'; it has test, train"):
        read(f"{tmp_path}#dev")


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        (
            "rows.jsonl",
            b'{"q": 1}\n{"q": \n"text"\n[]\n{"q": "\xff"}\n',
            ["", "is no JSON", "is no object", "is no object", "is not UTF-8"],
        ),
        ("rows.csv", b"q,a\n1,2\n1\n1,2,3\n\xff,2\n", ["", "more or fewer", "more or fewer", "is not UTF-8"]),
        ("rows.csv", b'q,a\n1,2\n"1,2\n3,4\n', ["", "is no CSV"]),
    ],
)
def test_a_broken_row_is_one_row(name: str, content: bytes, expected: list[str], tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert [
        bool(found) == bool(wanted) and wanted in found for found, wanted in zip(reasons(path), expected, strict=True)
    ] == [True] * len(expected)


def whole_parquet(folder: Path) -> bytes:
    pyarrow.parquet.write_table(pyarrow.table({"q": [str(n) * 40 for n in range(20_000)]}), folder / "whole")
    return (folder / "whole").read_bytes()


def test_a_parquet_file_that_broke_off_is_refused_in_one_line(tmp_path: Path) -> None:
    content, path = whole_parquet(tmp_path), tmp_path / "rows.parquet"
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InvalidInput, match=r"rows.parquet is no whole parquet file: .*; fetch or write it again"):
        read(path)
    path.write_bytes(content[:1000] + b"\0" * 9000 + content[10_000:])
    with pytest.raises(InvalidInput, match=r"rows.parquet is broken after row \d+: "):
        read(path)


def broken_files() -> Iterator[tuple[str, bytes, str]]:
    yield "rows.json", json.dumps(ROWS, indent=1).encode()[:-9], "breaks off, or is no JSON"
    yield "rows.json", b'{\n "q": ["a"],\n "a": ["b"]\n}', "is one JSON object with q, a; give an array of rows"
    yield "rows.jsonl.gz", gzip.compress(LINES.encode(), mtime=0)[:-12], "is not a whole gzip file"
    yield "rows.jsonl.gz", b"plain text", "is not a whole gzip file"
    yield "rows.jsonl", "{}\n".encode("utf-16")[:-1], "is neither UTF-8 nor UTF-16"
    yield "rows.csv", b"q,q\n1,2\n", "the column 'q' comes twice"
    yield "rows.jsonl.zst", b"", "is packed: unpack it, or pack it with gzip"


@pytest.mark.parametrize(("name", "content", "complaint"), tuple(broken_files()))
def test_a_file_that_cannot_be_read_is_refused_in_one_line(
    name: str, content: bytes, complaint: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=complaint) as refused:
        read(path)
    assert "\n" not in str(refused.value)


def test_what_is_not_there_is_refused_with_what_to_write(tmp_path: Path) -> None:
    with pytest.raises(
        InvalidInput, match=r"there is no openai/gsm8k; a data set of the hub is written hf:openai/gsm8k"
    ):
        read("openai/gsm8k")
    with pytest.raises(InvalidInput, match="holds no data"):
        read(tmp_path)
    path = tmp_path / "rows.jsonl"
    path.write_text(LINES)
    with pytest.raises(InvalidInput, match="is one file and has no splits: leave out #train"):
        read(f"{path}#train")


def test_a_saved_data_set_without_that_split_or_whole_files_is_refused(tmp_path: Path) -> None:
    one = Dataset.from_list(ROWS)
    DatasetDict({"train": one, "test": one}).save_to_disk(tmp_path / "set")
    with pytest.raises(InvalidInput, match=r"has the splits train, test: name one, as .*#train"):
        read(tmp_path / "set")
    with pytest.raises(InvalidInput, match=r"has no split 'dev'; it has train, test"):
        read(f"{tmp_path / 'set'}#dev")
    (arrow,) = (tmp_path / "set" / "train").glob("*.arrow")
    arrow.write_bytes(arrow.read_bytes()[:200])
    with pytest.raises(InvalidInput, match=r"is (no whole data set|broken)") as refused:
        read(f"{tmp_path / 'set'}#train")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("start", "remedy"), [(b"PK\3\4", "unpack it"), (b"PAR1", "with .parquet"), (b"\x1f\x8b\x08\0", "with .gz")]
)
def test_a_file_of_another_kind_than_its_name_says_is_refused(start: bytes, remedy: str, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_bytes(start + b"\0" * 20)
    with pytest.raises(InvalidInput, match=remedy):
        read(tmp_path / "rows.jsonl")
