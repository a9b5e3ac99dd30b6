"""Writes, reads and checks the manifest of a policy bundle in a directory."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import xxhash

from shared.errors import InvalidInput, shorten
from shared.files import atomic_write
from shared.protocol.message import complaint
from shared.protocol.weights import BundleFile, Manifest, Piece
from shared.tree.draw import WeightVersion
from shared.weights.tensors import tensor_shapes

MANIFEST_NAME = "manifest.json"
_HASHED_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An immutable policy bundle on disk, in the layout that `transformers` reads."""

    manifest: Manifest
    directory: Path

    @property
    def version(self) -> WeightVersion:
        """The version of its weights."""
        return self.manifest.version


class PlacedPiece(NamedTuple):
    """Where a piece lies."""

    file: str
    begin: int
    piece: Piece


def places_of(manifest: Manifest) -> Iterator[PlacedPiece]:
    """All pieces of a bundle, in order: a block of a delta names one by its number here."""
    for file in manifest.files:
        begin = 0
        for piece in file.pieces:
            yield PlacedPiece(file.name, begin, piece)
            begin += piece.num_bytes


def write_manifest(run: str, directory: Path, version: WeightVersion) -> Manifest:
    """Hashes the files of a snapshot directory (flat, as `transformers` saves a model) and writes their manifest
    beside them. InvalidInput when the directory holds no files or anything but plain files."""
    files = files_of(directory)
    manifest = Manifest(run=run, version=version, files=files, content_hash=content_hash(files))
    atomic_write(directory / MANIFEST_NAME, manifest.model_dump_json(), durable=True)
    return manifest


def read_manifest(directory: Path) -> Manifest:
    """The manifest of a snapshot directory; InvalidInput when it is missing or cannot be read."""
    try:
        return Manifest.model_validate_json((directory / MANIFEST_NAME).read_bytes())
    except (OSError, ValueError) as error:
        raise InvalidInput(f"{directory} is no snapshot: its {MANIFEST_NAME} cannot be read: {_why(error)}") from error


def _why(error: OSError | ValueError) -> str:
    return complaint(error) if isinstance(error, ValueError) else error.strerror or str(error)


def content_hash(files: Sequence[BundleFile]) -> str:
    """The sha256 over names and pieces of the files, in their order: as JSON with sorted keys and no blanks."""
    described = json.dumps([file.model_dump(mode="json") for file in files], separators=(",", ":"), sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()


def check_manifest(manifest: Manifest) -> None:
    """InvalidInput unless the files' names are distinct and the content hash is right."""
    names = [file.name for file in manifest.files]
    # without case: on some file systems `A` and `a` are the same file
    if len({name.lower() for name in [*names, MANIFEST_NAME]}) != len(names) + 1:
        raise InvalidInput(f"a bundle's files have distinct names, none of them {MANIFEST_NAME}: {shorten(str(names))}")
    expected = content_hash(manifest.files)
    if expected != manifest.content_hash:
        raise InvalidInput(f"content_hash is {manifest.content_hash}, but that of the listed files is {expected}")


def check_contents(directory: Path, manifest: Manifest) -> None:
    """InvalidInput unless the directory holds the manifest's files as they were announced, and nothing else. Blocking:
    reads all of them."""
    names = {path.name for path in directory.iterdir()}
    if directory.is_symlink() or names != {MANIFEST_NAME, *(file.name for file in manifest.files)}:
        raise InvalidInput(f"{directory} holds other files than its manifest says: {sorted(names)}")
    for file in manifest.files:
        path = directory / file.name
        if path.is_symlink() or not path.is_file() or path.stat().st_size != file.num_bytes:
            raise InvalidInput(f"{path} is not the file of {file.num_bytes} bytes that its manifest announces")
    for place in places_of(manifest):
        check_piece(directory / place.file, place)


def check_piece(path: Path, place: PlacedPiece) -> None:
    """InvalidInput unless the bytes of a piece on the disk are the announced ones."""
    require_hash(place, _hash_range(path, place.begin, place.piece.num_bytes))


def require_hash(place: PlacedPiece, found: str) -> None:
    """InvalidInput unless a piece has the hash that its manifest announces."""
    if found != place.piece.xxh3:
        what = f"tensor {place.piece.tensor!r} of {place.file}" if place.piece.tensor else place.file
        raise InvalidInput(f"{what} arrived with xxh3 {found}, its manifest says {place.piece.xxh3}")


def same_layout(one: BundleFile, other: BundleFile) -> bool:
    """Whether two files of one name have pieces of the same lengths, in values of the same width: a delta changes one
    into the other in place."""
    layouts = [[(piece.num_bytes, piece.width) for piece in file.pieces] for file in (one, other)]
    return one.name == other.name and layouts[0] == layouts[1]


def files_of(directory: Path) -> tuple[BundleFile, ...]:
    """The files of a snapshot directory with their checksums. InvalidInput when it holds none, or anything but plain
    files. Blocking: reads them."""
    return tuple(_bundle_file(path) for path in _paths_of(directory))


def _paths_of(directory: Path) -> list[Path]:
    paths = sorted(path for path in directory.iterdir() if path.name != MANIFEST_NAME)
    for path in paths:
        if path.is_symlink() or not path.is_file():
            raise InvalidInput(f"a snapshot directory is flat and holds plain files only, not {path}")
    if not paths:
        raise InvalidInput(f"{directory} is empty: there is nothing to announce")
    return paths


def _bundle_file(path: Path) -> BundleFile:
    try:
        return BundleFile(name=path.name, pieces=tuple(_pieces_of(path)))
    except ValueError as error:
        raise InvalidInput(f"{path} cannot travel in a bundle: {complaint(error)}") from error


def _pieces_of(path: Path) -> Iterator[Piece]:
    begin = 0
    for entry in _tensors_of(path):
        first, end = entry["begin"], entry["end"]
        if begin == 0:  # the head: its length, and the table of tensors
            yield Piece(num_bytes=first, xxh3=_hash_range(path, 0, first))
        yield Piece(
            num_bytes=end - first,
            xxh3=_hash_range(path, first, end - first),
            tensor=entry["name"],
            dtype=entry["dtype"],
            shape=entry["shape"],
        )
        begin = end
    if begin == 0:
        num_bytes = path.stat().st_size
        yield Piece(num_bytes=num_bytes, xxh3=_hash_range(path, 0, num_bytes))


def _tensors_of(path: Path) -> list[dict[str, Any]]:
    """The tensors of a safetensors file as they lie in it; none in other files."""
    if path.suffix != ".safetensors":
        return []
    try:
        tensor_shapes(path)  # checks that they fill the file exactly
    except InvalidInput:
        return []  # travels as bytes; whoever loads it will say what it is
    with path.open("rb") as file:
        head = int.from_bytes(file.read(8), "little")
        table = json.loads(file.read(head))
    found = [
        {"name": name, "dtype": one["dtype"], "shape": tuple(one["shape"]), "offsets": one["data_offsets"]}
        for name, one in table.items()
        if name != "__metadata__"
    ]
    for one in found:
        one["begin"], one["end"] = (8 + head + offset for offset in one.pop("offsets"))
    return sorted(found, key=lambda one: (one["begin"], one["end"]))


def _hash_range(path: Path, begin: int, num_bytes: int) -> str:
    digest, buffer = xxhash.xxh3_128(), memoryview(bytearray(min(_HASHED_BYTES, num_bytes)))
    with path.open("rb", buffering=0) as file:
        file.seek(begin)
        while num_bytes and (count := file.readinto(buffer[:num_bytes])):
            digest.update(buffer[:count])
            num_bytes -= count
    return digest.hexdigest()
