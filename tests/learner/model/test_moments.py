"""AdamW's state in files: read as written, and nothing else is made of them."""

import pickle
from pathlib import Path

import pytest
import torch
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import _MEM_FORMAT_ENCODING

from services.learner.model.sharding.moments import has_moments, read_moments, write_moments

MOMENTS = {
    "a.exp_avg": torch.arange(6.0).view(2, 3),
    "a.exp_avg_sq": torch.ones(2, 3, dtype=torch.bfloat16),
    "a.step": torch.tensor(3.0),
}


class Touch:
    """What a hostile pickle holds: reading it would make a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self._path,)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    assert not any(tmp_path.iterdir())
    write_moments(MOMENTS, tmp_path, None)
    assert has_moments(tmp_path)
    found = {name: torch.zeros_like(tensor) for name, tensor in MOMENTS.items()}
    read_moments(found, tmp_path, None)
    assert all(torch.equal(found[name], tensor) for name, tensor in MOMENTS.items())


def test_of_a_run_without_an_update_there_is_nothing(tmp_path: Path) -> None:
    write_moments({}, tmp_path, None)
    assert not has_moments(tmp_path)


@pytest.mark.parametrize("reads", [has_moments, lambda directory: read_moments(dict(MOMENTS), directory, None)])
def test_an_index_that_would_run_code_is_refused(reads: object, tmp_path: Path) -> None:
    write_moments(MOMENTS, tmp_path, None)
    (tmp_path / ".metadata").write_bytes(pickle.dumps(Touch(tmp_path / "touched")))
    with pytest.raises(OSError, match="is no part of an index of tensors"):
        reads(tmp_path)  # type: ignore[operator]
    assert not (tmp_path / "touched").exists()


class Attribute:
    """A pickle of it takes an attribute of `of`, by name."""

    def __init__(self, of: object, name: str) -> None:
        self._arguments = of, name

    def __reduce__(self) -> tuple[object, tuple[object, str]]:
        return getattr, self._arguments


def test_attributes_are_read_of_enumerations_alone(tmp_path: Path) -> None:
    """As Python 3.11.2 writes what torch says of memory formats."""
    write_moments(MOMENTS, tmp_path, None)
    index = FileSystemReader(tmp_path).read_metadata()
    index.planner_data = Attribute(_MEM_FORMAT_ENCODING, "TORCH_CONTIGUOUS_FORMAT")
    (tmp_path / ".metadata").write_bytes(pickle.dumps(index))
    read_moments(dict(MOMENTS), tmp_path, None)
    index.planner_data = Attribute(torch.Size, "numel")
    (tmp_path / ".metadata").write_bytes(pickle.dumps(index))
    with pytest.raises(OSError, match="attribute numel is no part of an index"):
        has_moments(tmp_path)


def test_what_is_no_tensor_is_refused(tmp_path: Path) -> None:
    """torch reads it with a pickle of its own."""
    write_moments(MOMENTS | {"a.step": {1, 2}}, tmp_path, None)  # type: ignore[dict-item]
    with pytest.raises(OSError, match="BytesStorageMetadata is no part of an index of tensors"):
        has_moments(tmp_path)


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    write_moments(MOMENTS, tmp_path, None)
    with pytest.raises(OSError, match=r"a\.exp_avg"):
        read_moments({"a.exp_avg": torch.zeros(5, 3)}, tmp_path, None)
