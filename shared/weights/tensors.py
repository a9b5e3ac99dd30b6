"""Reads what tensors a safetensors file holds, from its header alone."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from shared.errors import InvalidInput

_LENGTH_BYTES = 8
_MAX_HEADER_BYTES = 100_000_000
_BITS_OF_DTYPE = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "U16": 16, "I16": 16, "F16": 16, "BF16": 16,
    "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64, "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip


class TensorShape(NamedTuple):
    """What a tensor is, without its values; `dtype` as safetensors names it."""

    dtype: str
    shape: tuple[int, ...]


def tensor_shapes(path: Path) -> dict[str, TensorShape]:
    """The tensors of a safetensors file, or of all such files of a directory, by name.

    InvalidInput when a header is malformed, its ranges do not fill the file exactly, or two files share a name.
    """
    if not path.is_dir():
        return _of_file(path)
    shapes: dict[str, TensorShape] = {}
    files = sorted(path.glob("*.safetensors"))
    if not files:
        raise InvalidInput(f"{path} holds no .safetensors file: there are no weights in it")
    for file in files:
        more = _of_file(file)
        if shared := shapes.keys() & more.keys():
            raise InvalidInput(f"{file} holds {min(shared)!r} again; a tensor lies in one file")
        shapes.update(more)
    return shapes


def require_same_tensors(expected: Mapping[str, TensorShape], given: Mapping[str, TensorShape]) -> None:
    """InvalidInput unless both are the same tensors, naming the first that differ."""
    for name in sorted(expected.keys() ^ given.keys())[:1]:
        raise InvalidInput(f"tensor {name!r} is {'missing' if name in expected else 'not of this model'}")
    for name, wanted in expected.items():
        if given[name] != wanted:
            raise InvalidInput(f"tensor {name!r} is {_told(given[name])}, this model has {_told(wanted)}")


def _told(tensor: TensorShape) -> str:
    return f"{tensor.dtype}{list(tensor.shape)}"


def _of_file(path: Path) -> dict[str, TensorShape]:
    header, data_bytes = _read_header(path)
    shapes: dict[str, TensorShape] = {}
    ranges: list[tuple[int, int]] = []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        tensor, span = _entry(path, name, entry)
        shapes[name] = tensor
        ranges.append(span)
    _check_ranges(path, ranges, data_bytes)
    return shapes


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    try:
        with path.open("rb") as file:
            total_bytes = path.stat().st_size
            num_bytes = int.from_bytes(file.read(_LENGTH_BYTES), "little")
            data_bytes = total_bytes - _LENGTH_BYTES - num_bytes
            if data_bytes < 0 or num_bytes > _MAX_HEADER_BYTES:
                raise InvalidInput(f"{path} is not safetensors: a header of {num_bytes} bytes in {total_bytes}")
            header = json.loads(file.read(num_bytes))
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{path} is not safetensors: its header is not JSON: {error}") from error
    if not isinstance(header, dict):
        raise InvalidInput(f"{path} is not safetensors: its header is a {type(header).__name__}, not an object")
    return header, data_bytes


def _entry(path: Path, name: str, entry: Any) -> tuple[TensorShape, tuple[int, int]]:
    try:
        dtype, shape, (start, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        bits = _BITS_OF_DTYPE[dtype]
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInput(f"{path}: tensor {name!r} is described wrongly: {error!r}") from error
    if any(type(number) is not int or number < 0 for number in (*shape, start, end)):
        raise InvalidInput(f"{path}: tensor {name!r} has a size or offset that is no natural number: {entry}")
    num_items = 1
    for size in shape:
        num_items *= size
    if end < start or (num_items * bits + 7) // 8 != end - start:
        raise InvalidInput(f"{path}: tensor {name!r}, {dtype}{list(shape)}, does not fill its bytes [{start}, {end})")
    return TensorShape(dtype, shape), (start, end)


def _check_ranges(path: Path, ranges: list[tuple[int, int]], data_bytes: int) -> None:
    at = 0
    for start, end in sorted(ranges):
        if start != at:
            raise InvalidInput(f"{path}: its tensors leave a hole or overlap at byte {at} of the data")
        at = end
    if at != data_bytes:
        raise InvalidInput(
            f"{path}: its tensors fill {at} bytes, but it has {data_bytes}; it was cut or is no whole file"
        )
