"""New weights copied from a bundle's files into the model that serves: there is no second model, even for a moment."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedModel

from services.rollout.engines.embedded.dry_run import DryRun
from shared.errors import InvalidInput
from shared.weights import TensorShape, tensor_shapes

_CONFIGS = ("config.json", "generation_config.json", "model.safetensors.index.json", "adapter_config.json")
"""What decides, beside the weights' own files, what transformers reads and computes."""
_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16}
_MERGING = {"MergeModulelist", "Concatenate"}
"""Conversions of transformers that lay a file's tensors one behind the other and leave each whole."""

Pieces = Mapping[str, tuple[str, ...]]
"""For each entry of a model's state, the tensors of the file that make it up, one behind the other."""


@dataclass(frozen=True, slots=True)
class BundleLayout:
    """All of a bundle but its numbers: two of one layout differ in nothing else."""

    configs: tuple[bytes | None, ...]
    shapes: Mapping[str, Mapping[str, TensorShape]]
    """Of each file's tensors."""

    @classmethod
    def read(cls, snapshot: Path) -> "BundleLayout":
        """InvalidInput or OSError where the directory is no bundle. Of the weights, it reads the headers alone."""
        configs = [snapshot / name for name in _CONFIGS]
        shapes = {path.name: tensor_shapes(path) for path in sorted(snapshot.glob("*.safetensors"))}
        return cls(tuple(path.read_bytes() if path.exists() else None for path in configs), shapes)

    @property
    def is_copyable(self) -> bool:
        """Whether all tensors are of one type whose numbers float32 has, so that copying rounds as loading does."""
        dtypes = {tensor.dtype for tensors in self.shapes.values() for tensor in tensors.values()}
        return len(dtypes) == 1 and dtypes <= _DTYPES.keys()


class MappedTensors:
    """The tensors of a bundle where they lie in its files. `close` lets go of these: they may be deleted then."""

    def __init__(self, snapshot: Path, files: Iterable[str]) -> None:
        """OSError or SafetensorError for files that cannot be read."""
        self._tensors: dict[str, torch.Tensor] = {}
        for name in files:
            with safe_open(snapshot / name, framework="pt") as file:
                self._tensors |= {tensor: file.get_tensor(tensor) for tensor in file.keys()}  # noqa: SIM118 - no mapping

    def __enter__(self) -> "MappedTensors":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._tensors[name]

    def names(self) -> list[str]:
        return list(self._tensors)

    def close(self) -> None:
        self._tensors.clear()

    def first_nonfinite(self) -> str | None:
        """The first tensor that holds NaN or infinity."""
        return next((name for name, tensor in self._tensors.items() if not is_finite(tensor)), None)


class Placement:
    """Where the tensors of every bundle of one layout lie in a model, as loading one of them has shown."""

    def __init__(self, layout: BundleLayout, pieces: Pieces, dry_run: DryRun) -> None:
        self._layout = layout
        self._pieces = pieces
        self._dry_run = dry_run

    @classmethod
    def find(cls, model: PreTrainedModel, snapshot: Path, token_ids: Sequence[int]) -> "Placement | None":
        """Found by the bits of `model`, just loaded from `snapshot` as float32; None where anything is in doubt."""
        layout = BundleLayout.read(snapshot)
        if not layout.is_copyable or not _keeps_tensors_whole(model):
            return None
        with MappedTensors(snapshot, layout.shapes) as tensors:
            pieces = find_pieces(model.state_dict(), tensors, model.base_model_prefix)
            if pieces is None:
                return None
            try:
                placement = cls(layout, pieces, DryRun(model, token_ids))
                return placement if placement._has_finite_logits(tensors) else None
            except (RuntimeError, TypeError, ValueError, AttributeError):  # its modules lend weights to each other
                return None

    def open(self, snapshot: Path) -> "BundleWeights | None":
        """The weights of another bundle, checked; None if its layout is another, or it cannot be read.

        InvalidInput where a weight, or what the model computes with them, is not finite. Blocking: reads all weights.
        """
        try:
            if BundleLayout.read(snapshot) != self._layout:
                return None
            tensors = MappedTensors(snapshot, self._layout.shapes)
        except (InvalidInput, OSError, SafetensorError):
            return None  # loading it says what is wrong
        weights = BundleWeights(tensors, self._pieces)
        try:
            self._check(snapshot, tensors)
        except BaseException:
            weights.close()
            raise
        return weights

    def _check(self, snapshot: Path, tensors: MappedTensors) -> None:
        if (name := tensors.first_nonfinite()) is not None:
            raise InvalidInput(f"{snapshot}: {name} holds NaN or infinity; the update that made it failed")
        if not self._has_finite_logits(tensors):
            raise InvalidInput(
                f"{snapshot}: the logits of these weights are not finite; the update that made them failed"
            )

    def _has_finite_logits(self, tensors: MappedTensors) -> bool:
        def weight_of(key: str, shape: torch.Size) -> torch.Tensor:
            found = [tensors[name].view(-1) for name in self._pieces[key]]
            return (found[0] if len(found) == 1 else torch.cat(found)).view(shape)

        return self._dry_run.has_finite_logits(weight_of)


class BundleWeights:
    """Weights that have been checked and wait to be copied."""

    def __init__(self, tensors: MappedTensors, pieces: Pieces) -> None:
        self._tensors = tensors
        self._pieces = pieces

    def copy_into(self, state: Mapping[str, torch.Tensor]) -> None:
        """Overwrites a model's state, and lets go of the files."""
        copied: set[int] = set()
        try:
            for key, weight in state.items():
                if weight.data_ptr() in copied:  # tied
                    continue
                copied.add(weight.data_ptr())
                start, flat = 0, weight.view(-1)
                for name in self._pieces[key]:
                    piece = self._tensors[name].view(-1)
                    flat[start : start + len(piece)].copy_(piece)
                    start += len(piece)
        finally:
            self.close()

    def close(self) -> None:
        """Lets go of the files."""
        self._tensors.close()


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether it holds neither NaN nor infinity, of which NaN is its own least and largest number."""
    return tensor.numel() == 0 or all(bool(torch.isfinite(end)) for end in torch.aminmax(tensor))


def find_pieces(state: Mapping[str, torch.Tensor], tensors: MappedTensors, prefix: str) -> Pieces | None:
    """Which tensors make up each entry, by name and bits where names agree, and else by bits alone.

    None unless every tensor is used once, and every entry made of them. Tied entries have the same tensors.
    """
    keys_of: dict[int, list[str]] = defaultdict(list)
    for key, weight in state.items():
        if weight.dtype != torch.float32 or not weight.is_contiguous() or not weight.numel():
            return None
        keys_of[weight.data_ptr()].append(key)
    made_of: dict[str, tuple[str, ...]] = {
        keys[0]: (name,) for keys in keys_of.values() if (name := _namesake(keys, state, tensors, prefix)) is not None
    }
    others = _NamesByBits(tensors, set(tensors.names()).difference(*made_of.values()))
    for first in (keys[0] for keys in keys_of.values() if keys[0] not in made_of):
        if (names := others.that_make_up(state[first].view(-1))) is None:
            return None
        made_of[first] = names
    uses = Counter(name for names in made_of.values() for name in names)
    if uses != Counter(tensors.names()):
        return None
    return {key: made_of[keys[0]] for keys in keys_of.values() for key in keys}


def _namesake(
    keys: Sequence[str], state: Mapping[str, torch.Tensor], tensors: MappedTensors, prefix: str
) -> str | None:
    """The tensor that has one of these names, with or without the base model's prefix, and the entry's numbers."""
    names = set(tensors.names())
    for key in keys:
        for name in (key, f"{prefix}.{key}", key.removeprefix(f"{prefix}.")):
            if name in names and tensors[name].shape == state[key].shape and _same_bits(tensors[name], state[key]):
                return name
    return None


class _NamesByBits:
    """Tensors of a file, found by their numbers. One that repeats a number, or another, cannot be told by them."""

    def __init__(self, tensors: MappedTensors, names: Iterable[str]) -> None:
        digests = {name: _digest(tensors[name].float()) for name in names if _has_several_numbers(tensors[name])}
        counts = Counter(digests.values())
        self._names = {digest: name for name, digest in digests.items() if counts[digest] == 1}
        self._sizes = sorted({tensors[name].numel() for name in self._names.values()})

    def that_make_up(self, flat: torch.Tensor) -> tuple[str, ...] | None:
        """Those that, one behind the other, are `flat`."""
        names: list[str] = []
        start = 0
        while start < len(flat):
            ends = (start + size for size in self._sizes if start + size <= len(flat))
            found = ((end, self._names.get(_digest(flat[start:end]))) for end in ends)
            start, name = next(((end, name) for end, name in found if name is not None), (0, None))
            if name is None:
                return None
            names.append(name)
        return tuple(names)


def _keeps_tensors_whole(model: PreTrainedModel) -> bool:
    """Whether transformers, as it loaded `model`, renamed or merged the file's tensors and did nothing else to them."""
    conversions = getattr(model, "_weight_conversions", None)
    if conversions is None:
        return False
    operations = {type(one).__name__ for each in conversions for one in getattr(each, "operations", ())}
    return operations <= _MERGING


def _has_several_numbers(tensor: torch.Tensor) -> bool:
    least, largest = torch.aminmax(tensor)
    return bool(least < largest)


def _same_bits(tensor: torch.Tensor, weight: torch.Tensor) -> bool:
    return torch.equal(tensor.float().view(torch.int32), weight.view(torch.int32))


def _digest(tensor: torch.Tensor) -> bytes:
    return hashlib.blake2b(tensor.numpy().data, digest_size=16).digest()
