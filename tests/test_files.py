"""Files are replaced whole, and JSON lines are read with their line numbers."""

import stat
from pathlib import Path

import pytest
from pydantic import BaseModel, ConfigDict

from shared.errors import InvalidInput
from shared.files import atomic_write, atomic_writer, read_json_lines, read_rows, read_text


class Row(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: str
    size: int = 0


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    path.write_text("old and longer")
    atomic_write(path, "new ✓", durable=True)
    assert path.read_text(encoding="utf-8") == "new ✓"
    atomic_write(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    path.write_text("old")
    with pytest.raises(TypeError), atomic_writer(path) as file:
        file.writelines([b"half", "no bytes"])  # type: ignore[list-item]
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_private_file_is_its_owners_alone(tmp_path: Path) -> None:
    atomic_write(tmp_path / "secret", "s", mode=0o600)
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600


def test_json_lines_are_read_with_file_and_line_behind_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"id": "a"}\r\n\n  \n[1, "\xc3\xa9"]')
    assert list(read_json_lines(path)) == [(f"{path}:1", {"id": "a"}), (f"{path}:4", [1, "é"])]


@pytest.mark.parametrize("order", ["le", "be"])
def test_utf16_is_read_behind_its_byte_order_mark(tmp_path: Path, order: str) -> None:
    path, text = tmp_path / "rows.jsonl", '{"id": "é"}\n\n[1, "猫"]\n'
    path.write_bytes(f"\ufeff{text}".encode(f"utf-16-{order}"))
    assert read_text(path) == text
    assert list(read_json_lines(path)) == [(f"{path}:1", {"id": "é"}), (f"{path}:3", [1, "猫"])]
    path.write_bytes(path.read_bytes() + b"\x00")
    with pytest.raises(InvalidInput, match=r"rows.jsonl is not UTF-16, as its first bytes say: .* save it as UTF-8"):
        list(read_json_lines(path))


@pytest.mark.parametrize("broken", [b'{"id"', b"\xff\xfe", b"[" * 100_000, b"1 2"])
def test_a_broken_line_is_named_or_skipped(tmp_path: Path, broken: bytes) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"1\n" + broken + b"\n3\n")
    with pytest.raises(InvalidInput, match=r"rows.jsonl:2: not JSON"):
        list(read_json_lines(path))
    assert [value for _, value in read_json_lines(path, broken=[])] == [1, 3]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"cannot read .*rows.jsonl: No such file"):
        list(read_json_lines(tmp_path / "rows.jsonl"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{}", r"rows.jsonl:1: id: Field required; a row has the fields id$"),
        ('{"id": "a", "sise": 1}', r"rows.jsonl:1: sise: Extra inputs"),
        ("[]", r"rows.jsonl:1: Input should be a valid dictionary"),
    ],
)
def test_a_row_of_another_shape_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(line)
    with pytest.raises(InvalidInput, match=message):
        list(read_rows(path, Row))


def test_a_link_that_another_user_laid_is_not_followed(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.write_text("kept")
    (tmp_path / ".mine.partial").symlink_to(theirs)
    with pytest.raises(OSError, match="symbolic links"):
        atomic_write(tmp_path / "mine", "new")
    assert theirs.read_text() == "kept"
