"""What tensors a file holds is read from its header, and a lying header is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from shared.errors import InvalidInput
from shared.weights import TensorShape, require_same_tensors, tensor_shapes


def write(path: Path, header: object, num_data_bytes: int, *, header_bytes: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    length = len(text) if header_bytes is None else header_bytes
    path.write_bytes(length.to_bytes(8, "little") + text + b"\0" * num_data_bytes)
    return path


def entry(**changes: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24], **changes}


def test_a_real_file_is_read_as_the_library_wrote_it(tmp_path: Path) -> None:
    tensors = {
        "embed": torch.zeros(5, 4),
        "norm": torch.zeros(4, dtype=torch.bfloat16),
        "scale": torch.zeros((), dtype=torch.float16),
        "none": torch.zeros(0, 4),
        "ids": torch.zeros(3, dtype=torch.int64),
        "mask": torch.zeros(3, dtype=torch.bool),
    }
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert tensor_shapes(tmp_path / "model.safetensors") == {
        "embed": ("F32", (5, 4)),
        "norm": ("BF16", (4,)),
        "scale": ("F16", ()),
        "none": ("F32", (0, 4)),
        "ids": ("I64", (3,)),
        "mask": ("BOOL", (3,)),
    }


def test_the_files_of_a_directory_are_read_together(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "model-1.safetensors")
    save_file({"b": torch.zeros(2)}, tmp_path / "model-2.safetensors")
    (tmp_path / "config.json").write_text("{}")
    assert tensor_shapes(tmp_path).keys() == {"a", "b"}
    save_file({"b": torch.zeros(2)}, tmp_path / "model-3.safetensors")
    with pytest.raises(InvalidInput, match="'b' again"):
        tensor_shapes(tmp_path)


def test_a_directory_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no weights"):
        tensor_shapes(tmp_path)


@pytest.mark.parametrize(
    ("header", "num_data_bytes"),
    [
        ({"a": entry()}, 23),
        ({"a": entry()}, 25),
        ({"a": entry(shape=[2, 4])}, 24),
        ({"a": entry(shape=[-2, -3])}, 24),
        ({"a": entry(shape=[2, 3.0])}, 24),
        ({"a": entry(shape=[True, 6])}, 24),
        ({"a": entry(shape="23")}, 24),
        ({"a": entry(shape=6)}, 24),
        ({"a": entry(dtype="F33")}, 24),
        ({"a": entry(dtype=["F32"])}, 24),
        ({"a": entry(data_offsets=[0])}, 24),
        ({"a": entry(data_offsets=[24, 0])}, 24),
        ({"a": entry(data_offsets=[4, 28])}, 28),
        ({"a": entry(), "b": entry()}, 24),
        ({"a": entry(), "b": entry(data_offsets=[25, 49])}, 49),
        (json.dumps({"a": entry(), "b": entry(data_offsets=[24, 48])}).replace('"b"', '"a"').encode(), 48),
        ({"a": {"dtype": "F32"}}, 24),
        ({"a": 3}, 24),
        ([], 0),
        (b"{", 0),
        (b"\xff", 0),
        (b"[" * 100_000, 0),
    ],
)
def test_a_header_that_does_not_fit_its_data_is_refused(tmp_path: Path, header: object, num_data_bytes: int) -> None:
    with pytest.raises(InvalidInput):
        tensor_shapes(write(tmp_path / "a.safetensors", header, num_data_bytes))


@pytest.mark.parametrize("header_bytes", [0, 10**6, 2**63])
def test_a_header_length_that_is_not_true_is_refused(tmp_path: Path, header_bytes: int) -> None:
    with pytest.raises(InvalidInput, match="not safetensors"):
        tensor_shapes(write(tmp_path / "a.safetensors", {}, 0, header_bytes=header_bytes))


def test_a_file_that_is_not_there_or_is_cut_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot read"):
        tensor_shapes(tmp_path / "none.safetensors")
    save_file({"a": torch.zeros(100)}, tmp_path / "a.safetensors")
    whole = (tmp_path / "a.safetensors").read_bytes()
    for length in (0, 7, 8, 20, len(whole) - 1):
        (tmp_path / "a.safetensors").write_bytes(whole[:length])
        with pytest.raises(InvalidInput):
            tensor_shapes(tmp_path / "a.safetensors")


def test_other_shapes_are_named() -> None:
    wanted = {"a": TensorShape("F32", (2, 3)), "b": TensorShape("F32", (4,))}
    require_same_tensors(wanted, dict(wanted))
    for given, said in (
        ({"a": wanted["a"]}, "tensor 'b' is missing"),
        ({**wanted, "c": wanted["a"]}, "tensor 'c' is not of this model"),
        ({**wanted, "a": TensorShape("F32", (3, 2))}, r"tensor 'a' is F32\[3, 2\], this model has F32\[2, 3\]"),
        ({**wanted, "b": TensorShape("BF16", (4,))}, r"tensor 'b' is BF16\[4\]"),
    ):
        with pytest.raises(InvalidInput, match=said):
            require_same_tensors(wanted, given)


def test_only_the_header_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors", {"a": entry(dtype="U8", shape=[2**40], data_offsets=[0, 2**40])}, 0)
    with path.open("ab") as file:
        file.truncate(file.tell() + 2**40)  # a hole of a terabyte
    assert tensor_shapes(path) == {"a": TensorShape("U8", (2**40,))}
