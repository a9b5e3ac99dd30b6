"""Writes, reads and checks the manifest of a policy bundle in a directory."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from shared.errors import InvalidInput
from shared.files import atomic_write
from shared.protocol.weights import BundleFile, Manifest
from shared.tree.draw import WeightVersion

MANIFEST_NAME = "manifest.json"
_CHUNK_BYTES = 1 << 20


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
        raise InvalidInput(f"{directory} is no snapshot: its {MANIFEST_NAME} cannot be read: {error}") from error


def content_hash(files: Sequence[BundleFile]) -> str:
    """The sha256 over the files' names and checksums, in their order."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name}\0{file.sha256}\n".encode())
    return digest.hexdigest()


def check_manifest(manifest: Manifest) -> None:
    """InvalidInput unless the files' names are distinct and the content hash is right."""
    names = [file.name for file in manifest.files]
    # without case: on some file systems `A` and `a` are the same file
    if len({name.lower() for name in [*names, MANIFEST_NAME]}) != len(names) + 1:
        raise InvalidInput(f"a bundle's files have distinct names, none of them {MANIFEST_NAME}: {names}")
    expected = content_hash(manifest.files)
    if expected != manifest.content_hash:
        raise InvalidInput(f"content_hash is {manifest.content_hash}, but that of the listed files is {expected}")


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
    with path.open("rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
        num_bytes = file.tell()
    try:
        return BundleFile(name=path.name, num_bytes=num_bytes, sha256=checksum)
    except ValueError as error:
        raise InvalidInput(f"{path} cannot travel in a bundle: {error}") from error
