"""Reads what tensors a safetensors file holds, from its header alone."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError, safe_open

from shared.errors import InvalidInput


class TensorShape(NamedTuple):
    """What a tensor is, without its values; `dtype` as safetensors names it."""

    dtype: str
    shape: tuple[int, ...]


def tensor_shapes(path: Path) -> dict[str, TensorShape]:
    """The tensors of a safetensors file, or of all such files of a directory, by name.

    InvalidInput when a header is malformed, its ranges do not fill the file exactly, or two files share a name.
    """
    if not path.is_dir():
        return _read_header(path)
    shapes: dict[str, TensorShape] = {}
    files = sorted(path.glob("*.safetensors"))
    if not files:
        raise InvalidInput(f"{path} holds no .safetensors file: there are no weights in it")
    for file in files:
        more = _read_header(file)
        if shared := shapes.keys() & more.keys():
            raise InvalidInput(f"{file} holds {min(shared)!r} again; a tensor lies in one file")
        shapes.update(more)
    return shapes


def require_same_tensors(expected: Mapping[str, TensorShape], given: Mapping[str, TensorShape]) -> None:
    """InvalidInput unless both hold the same tensors; it names the first that differs."""
    for name in sorted(expected.keys() ^ given.keys())[:1]:
        raise InvalidInput(f"tensor {name!r} is {'missing' if name in expected else 'not of this model'}")
    for name, wanted in expected.items():
        if given[name] != wanted:
            raise InvalidInput(f"tensor {name!r} is {_format(given[name])}, this model has {_format(wanted)}")


def _format(tensor: TensorShape) -> str:
    return f"{tensor.dtype}{list(tensor.shape)}"


def _read_header(path: Path) -> dict[str, TensorShape]:
    try:
        # opening maps the file, and reads and checks its header alone
        with safe_open(path, framework="numpy") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - a file is no mapping
            return {name: TensorShape(one.get_dtype(), tuple(one.get_shape())) for name, one in slices.items()}
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror or error}") from error
    except SafetensorError as error:
        raise InvalidInput(f"{path} is not safetensors: {error}") from error
